"""Runs commands in a shell whose PATH has the stand-ins of kubectl and helm, with or without a terminal,
and waits for their output. All input and output goes to the transcript."""

import re
import subprocess

import pexpect

# Seconds to wait for expected output.
WAIT_S = 30


class Failed(Exception):
    """A step did not have the expected result."""


class Terminal:
    """A shell with the stand-ins of kubectl and helm."""

    def __init__(self, environment: dict, folder: str, out):
        self.environment, self.folder, self.out = environment, folder, out

    def run(self, command: str, expect: str | None = None, fails: bool = False) -> str:
        """Runs a command that needs no terminal. `expect` is a pattern for its whole output."""
        self.out(f"$ {command}")
        done = subprocess.run(
            ["bash", "-c", command], capture_output=True, text=True, cwd=self.folder, env=self.environment, timeout=180, check=False
        )
        printed = done.stdout + done.stderr
        for line in printed.splitlines():
            self.out(f"  {line}")
        if (done.returncode != 0) != fails:
            raise Failed(f"{command}: exit code {done.returncode}: {printed}")
        if expect is not None and not re.fullmatch(expect, printed.strip(), re.DOTALL):
            raise Failed(f"{command}: printed\n{printed}\nwhich does not match\n{expect}")
        return done.stdout.strip()

    def sit(self, command: str) -> "Session":
        self.out(f"$ {command}")
        return Session(self, command)


class Session:
    """A command that runs at a terminal and is given input line by line."""

    def __init__(self, terminal: Terminal, command: str):
        self.terminal, self.command = terminal, command
        self.child = pexpect.spawn(
            "bash", ["-c", command], cwd=terminal.folder, env=terminal.environment, timeout=WAIT_S, encoding="utf-8", dimensions=(50, 250)
        )
        self.shown = []
        self.child.logfile_read = self

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind:
            for line in "".join(self.shown).replace("\r", "").splitlines()[-30:]:
                self.terminal.out(f"  {line}")
        self.child.close(force=True)

    # Called by pexpect with all output.
    def write(self, text: str) -> None:
        self.shown.append(text)

    def flush(self) -> None:
        pass

    def wait(self, pattern: str) -> str:
        try:
            self.child.expect(pattern)
        except (pexpect.TIMEOUT, pexpect.EOF) as error:
            raise Failed(f"{self.command}: expected {pattern!r}, got {''.join(self.shown)[-1500:]!r}") from error
        return self.child.match.group(0)

    def say(self, line: str) -> None:
        self.child.sendline(line)

    def end(self) -> str:
        try:
            self.child.expect(pexpect.EOF)
        except pexpect.TIMEOUT as error:
            raise Failed(f"{self.command}: did not end: {''.join(self.shown)[-1500:]!r}") from error
        self.child.close()
        whole = "".join(self.shown).replace("\r", "")
        for line in whole.splitlines():
            self.terminal.out(f"  {line}")
        return whole
