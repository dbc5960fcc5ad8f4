"""DAG `retrain`: the stages of dvc.yaml as tasks, then the effects that follow them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, CronTriggerTimetable, Param, TaskGroup
from approval_operator import ASK_APPROVAL
from stage_operator import RUN_ID, PlanOperator, RegisterOperator, StageOperator, retrying, task_id

from zdm_ml.params import load_params
from zdm_ml.pipeline.dvcfile import read_pipeline
from zdm_ml.settings import load_settings

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = load_settings(root=ROOT)
PIPELINE = read_pipeline(ROOT)
MODELS = list(PIPELINE.items)

FORM = {
    "profile": Param(
        load_params(ROOT / "params.yaml").profile,
        type="string",
        enum=["full", "quick", "smoke"],
        description="full: the recipe in params.yaml, all images. "
        "quick, smoke: demo models that never replace it.",
    ),
    "models": Param(
        MODELS,
        type="array",
        items={"type": "string", "enum": MODELS},
        examples=MODELS,
        minItems=1,
        uniqueItems=True,
        description="Models to train and compare.",
    ),
    "data_version": Param(
        "latest",
        type="string",
        pattern=r"^(latest|[0-9a-f]{7,40}|[0-9a-f]{32}\.dir)$",
        description="latest, a commit of branch zdm/data, or the images' DVC hash (....dir).",
    ),
    "force": Param(False, type="boolean", description="Run every stage, current or not."),
    "seed": Param(
        None, type=["null", "integer"], minimum=0, description="Empty: the seed of params.yaml."
    ),
    # Not just text: the form would not start a run without one.
    "note": Param(None, type=["null", "string"], maxLength=500, description="Kept with the run."),
    "ask_approval": ASK_APPROVAL,
}

with DAG(
    dag_id="retrain",
    description="Retrain, compare and register casting inspection models",
    doc_md=Path(__file__).with_suffix(".md").read_text(),
    schedule=AssetOrTimeSchedule(
        # No start date and a zero window: a fresh stack has no past schedule to catch up with.
        timetable=CronTriggerTimetable(
            SETTINGS.schedule, timezone="UTC", run_immediately=timedelta(0)
        ),
        assets=[Asset("castings")],
    ),
    catchup=False,
    is_paused_upon_creation=False,
    max_active_runs=1,
    max_active_tasks=32,
    params=FORM,
    tags=["zdm"],
):
    plan = PlanOperator(
        task_id="plan",
        command=f'zdm workspace plan --run-id {RUN_ID} --profile "$PROFILE" --models "$MODELS"'
        ' --data-version "$DATA_VERSION" --seed "$SEED" --force "$FORCE" --note "$NOTE"',
        env={
            "PROFILE": "{{ params.profile }}",
            "MODELS": "{{ params.models | join(',') }}",
            "DATA_VERSION": "{{ params.data_version }}",
            "SEED": "{{ '' if params.seed is none else params.seed }}",
            "FORCE": "{{ 'true' if params.force else 'false' }}",
            "NOTE": "{{ params.note or '' }}",
        },
        stages={stage.name: task_id(stage) for stage in PIPELINE.stages},
        execution_timeout=timedelta(minutes=30),
        **retrying(1),
    )
    groups = {
        name: TaskGroup(name) for name in sorted({s.group for s in PIPELINE.stages if s.item})
    }
    tasks = {
        stage.name: StageOperator(
            stage=stage,
            gpu_slots=SETTINGS.gpu_slots,
            task_id=stage.item or stage.group,
            task_group=groups.get(stage.group),
        )
        for stage in PIPELINE.stages
    }
    publish = BashOperator(
        task_id="publish",
        bash_command=f"exec zdm workspace publish --run-id {RUN_ID}",
        trigger_rule="none_failed",
        do_xcom_push=False,
        execution_timeout=timedelta(hours=1),
        **retrying(2),
    )
    for stage in PIPELINE.stages:
        tasks[stage.name].set_upstream([tasks[name] for name in stage.upstream] or [plan])
        if not any(stage.name in other.upstream for other in PIPELINE.stages):
            tasks[stage.name].set_downstream(publish)
    register = RegisterOperator(
        task_id="register",
        command=f"zdm register --run-id {RUN_ID} --json",
        asset=Asset("casting-inspector-challenger"),
        execution_timeout=timedelta(hours=1),
        **retrying(2),
    )
    publish.set_downstream(register)
