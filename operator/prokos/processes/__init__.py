"""Business processes as ProkOS sees them: reading BPMN, validating manifests, rendering TDEs."""

from prokos.processes.checked import Checked, check_manifests
from prokos.processes.definitions import Definition, read_definitions
from prokos.processes.model import Process, ProcessFile, Task
from prokos.processes.reading import read_bpmn
from prokos.processes.tde import kernel_processes, render_mappings, render_tde, tde_resources
from prokos.processes.validation import validate
from prokos.resources.loaded import BpmnSource, Loaded, Located
from prokos.resources.manifests import load_manifests
from prokos.resources.names import tde_job_type, tde_message, tde_process_id
from prokos.resources.problems import Problem

__all__ = [
    "BpmnSource",
    "Checked",
    "Definition",
    "Loaded",
    "Located",
    "Problem",
    "Process",
    "ProcessFile",
    "Task",
    "check_manifests",
    "kernel_processes",
    "load_manifests",
    "read_bpmn",
    "read_definitions",
    "render_mappings",
    "render_tde",
    "tde_job_type",
    "tde_message",
    "tde_process_id",
    "tde_resources",
    "validate",
]
