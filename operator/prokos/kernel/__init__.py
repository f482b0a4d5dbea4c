"""L0, the microkernel: keeps the engine ready, loads the kernel BPMN, starts the PDO, coordinates the TDEs."""

from prokos.kernel.home import Desired, DesiredProcess, Home, Observed, WorkerState
from prokos.kernel.kernel import Kernel

__all__ = ["Desired", "DesiredProcess", "Home", "Kernel", "Observed", "WorkerState"]
