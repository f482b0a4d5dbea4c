"""The development cluster: kind where there is Docker, else a real one-node Kubernetes made of processes here.

`python -m hack.cluster --help`, from the root of the repository; `make cluster` and `make cluster-down` call it.
"""
