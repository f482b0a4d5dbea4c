"""ProkOS: a process-centric operating system on Kubernetes."""

__version__ = "0.1.0"
