"""How a followed run is shown: live on a terminal, else one line per change."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from zdm_ml.follow import DONE, Snapshot, Task

_STYLES = {"failed": "bold red", "upstream_failed": "red", "success": "green"}


def clock(seconds: float) -> str:
    """Return seconds as m:ss."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


class LineView:
    """One line per task that starts, ends or advances by a tenth."""

    def __init__(self, console: Console):
        self.console = console
        self.known: dict[str, str] = {}
        self.trouble = ""

    def __enter__(self) -> LineView:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def show(self, snapshot: Snapshot) -> None:
        """Print what differs from the snapshot before."""
        if snapshot.trouble != self.trouble:
            self.trouble = snapshot.trouble
            self._line(snapshot, f"{self.trouble}: waiting" if self.trouble else "Airflow is back")
        for task in snapshot.tasks:
            text = _change(snapshot, task)
            if text and self.known.get(task.name) != text:
                self.known[task.name] = text
                self._line(snapshot, text)

    def _line(self, snapshot: Snapshot, text: str) -> None:
        share = f"{snapshot.done}/{len(snapshot.tasks)}"
        self.console.print(
            f"[{clock(snapshot.elapsed)}] {snapshot.dag} {share}  {text}",
            markup=False,
            soft_wrap=True,
        )


def _change(snapshot: Snapshot, task: Task) -> str:
    """Return a task's line, rounded so that it changes about ten times while it trains."""
    if task.state in DONE:
        if task.state in {"skipped", "removed"}:
            return ""
        return f"{task.name}  {task.state}  {clock(task.seconds)}"
    if task not in snapshot.active:
        return ""
    training = snapshot.training
    if training and training.get("percent") is not None:
        rounded = {**training, "percent": float(training["percent"]) // 10 * 10}
        snapshot = Snapshot(snapshot.dag, snapshot.run_id, snapshot.state, training=rounded)
    return snapshot.describe(task)


class LiveView:
    """A bar and the tasks at work, redrawn in place; ended tasks scroll by above it."""

    def __init__(self, console: Console):
        self.console = console
        self.live = Live(console=console, refresh_per_second=4, transient=True)
        self.ended: set[tuple[str, str]] = set()

    def __enter__(self) -> LiveView:
        self.live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.live.__exit__(kind, error, trace)

    def show(self, snapshot: Snapshot) -> None:
        """Redraw."""
        for task in snapshot.tasks:
            key = (snapshot.run_id, task.name)
            if task.state in _STYLES and key not in self.ended:
                self.ended.add(key)
                text = f"{task.name}  {task.state}  {clock(task.seconds)}"
                self.console.print(Text(text, style=_STYLES[task.state]))
        self.live.update(_picture(snapshot))


def _picture(snapshot: Snapshot) -> Group:
    total = max(1, len(snapshot.tasks))
    head = Text(
        f"{snapshot.dag}  {snapshot.state}  {snapshot.done}/{len(snapshot.tasks)} tasks  "
        f"{clock(snapshot.elapsed)}",
        style="bold",
    )
    lines = [Text(f"  {snapshot.describe(task)}") for task in snapshot.active]
    if snapshot.trouble:
        lines.append(Text(f"  {snapshot.trouble}: waiting", style="yellow"))
    return Group(head, ProgressBar(total=total, completed=snapshot.done, width=60), *lines)


def make_view(console: Console) -> LineView | LiveView:
    """Return the view that suits the console."""
    return LiveView(console) if console.is_terminal else LineView(console)
