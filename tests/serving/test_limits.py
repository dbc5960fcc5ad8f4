import pytest

from zdm_ml.serving.limits import Gate, RefusalError, check_type


def test_gate_turns_the_next_request_away_and_says_when_to_come_back() -> None:
    gate = Gate(1)

    with gate.admit(), pytest.raises(RefusalError) as caught, gate.admit():
        pass

    assert (caught.value.status, caught.value.retry_after) == (503, 1)


def test_gate_frees_its_slot_when_the_request_fails() -> None:
    gate = Gate(1)

    with pytest.raises(ValueError, match="in work"), gate.admit():
        raise ValueError("in work")

    assert gate.pending == 0


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"%PDF-1.7", b"\x00" * 64, b"<svg/>"])
def test_other_types_are_refused_by_their_first_bytes(content: bytes) -> None:
    assert check_type(content) == "not_an_image"


@pytest.mark.parametrize("content", [b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_jpeg_and_png_pass_by_their_first_bytes(content: bytes) -> None:
    assert check_type(content) == ""
