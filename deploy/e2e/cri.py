"""A client of a container runtime, by the Container Runtime Interface that kubelets use."""

import pathlib

import grpc

HERE = pathlib.Path(__file__).resolve().parent
# Timeout of a call in seconds, unless it has one of its own.
CALL_S = 60


class Runtime:
    """A connection to a container runtime. Safe to use from several threads."""

    def __init__(self, socket: pathlib.Path):
        grpc_files = grpc.protos_and_services("cri.proto")
        self.types = grpc_files[0]
        self.socket = socket
        self._stub = grpc_files[1].RuntimeServiceStub(grpc.insecure_channel(f"unix://{socket}"))

    def call(self, name: str, within_s: float = CALL_S, /, **fields):
        request = getattr(self.types, f"{name}Request")(**fields)
        return getattr(self._stub, name)(request, timeout=within_s)

    def is_ready(self) -> bool:
        try:
            conditions = self.call("Status", 2).status.conditions
        except grpc.RpcError:
            return False
        return bool(conditions) and all(condition.status for condition in conditions)

    def execute(self, container: str, command: list[str], timeout: int) -> tuple[int, str]:
        """Returns exit code and output. The exit code is -1 if the command takes too long or the container
        is gone."""
        try:
            done = self.call("ExecSync", timeout + 5, container_id=container, cmd=command, timeout=timeout)
        except grpc.RpcError as error:
            return -1, error.details()
        return done.exit_code, (done.stdout + done.stderr).decode(errors="replace")
