"""What not every machine has stands in few places: fp64 on a GPU, and what only POSIX systems offer."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import plaudit

SOURCE = Path(plaudit.__file__).parent

ON_THE_CPU = {
    "functional/precision.py": "the function that turns to fp64 where the device has it",
    "functional/groups.py": "credit is computed on the driver, from batches on the CPU",
    "functional/probe.py": "of features that a learner has read, which come back on the CPU",
    "models/length.py": "of scores and lengths that were read",
    "models/reward_model.py": "moments of scores that were read",
    "backends/local/agreement.py": "asks what type parameters have, and makes none",
    "backends/local/rewards.py": "scores as numbers, to be normalised",
    "stages/preference/feedback.py": "a mean of log-probs that were read",
    "stages/reward/scores.py": "scores that were read",
}
"""Files that may make 64-bit tensors, and why no device without such numbers is asked for them."""


def doubles(tree: ast.AST) -> Iterator[int]:
    """Lines on which a tensor becomes, or is made, a 64-bit floating-point one. Arrays of numpy are on the CPU."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("double", "float64"):
            of_numpy = isinstance(node.value, ast.Name) and node.value.id == "np"
            if not of_numpy:
                yield node.lineno


POSIX = {
    "os": {
        "fork", "forkpty", "kill", "killpg", "setsid", "setpgid", "setpgrp", "getpgid", "getuid", "geteuid", "getgid",
        "wait", "waitpid", "wait3", "wait4", "nice", "sysconf", "mkfifo", "mknod", "chown", "lchown", "chroot",
        "statvfs", "sched_getaffinity", "sched_setaffinity", "getloadavg", "uname", "set_blocking", "sendfile",
        "posix_spawn", "pread", "pwrite", "fchmod", "fchown", "openpty", "ttyname", "WNOHANG", "O_DIRECTORY",
        "O_NOFOLLOW",
    },
    "signal": {
        "SIGKILL", "SIGALRM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGPIPE", "SIGCHLD", "SIGSTOP", "SIGCONT",
        "SIGTSTP", "alarm", "setitimer", "getitimer", "ITIMER_REAL", "pause", "pthread_kill", "pthread_sigmask",
        "sigwait", "sigpending", "siginterrupt",
    },
    "socket": {"AF_UNIX", "SCM_RIGHTS", "fromfd"},
}  # fmt: skip
MODULES = {"resource", "fcntl", "termios", "tty", "pty", "pwd", "grp", "syslog", "posix", "crypt", "readline"}
ARGUMENTS = {"pass_fds", "preexec_fn", "dir_fd", "restore_signals", "umask"}


def posix_only(tree: ast.AST) -> Iterator[str]:
    """What Windows does not have, outside of functions that ask: by ``sys.platform``, ``hasattr``, or an ``except``."""
    asked = {
        node
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)) and _asks(function)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if node in asked:
            continue
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=name) if name in POSIX.get(module, ()):
                yield f"{node.lineno}: {module}.{name}"
            case ast.Import(names=names) if MODULES & {each.name for each in names}:
                yield f"{node.lineno}: {ast.unparse(node)}"
            case ast.ImportFrom(module=module, names=names) if module in MODULES:
                yield f"{node.lineno}: {ast.unparse(node)}"
            case ast.ImportFrom(module=str(module), names=names):
                for each in names:
                    if each.name in POSIX.get(module, ()):
                        yield f"{node.lineno}: {module}.{each.name}"
            case ast.keyword(arg=str(name)) if name in ARGUMENTS:
                yield f"{node.value.lineno}: {name}="


def _asks(function: ast.AST) -> bool:
    for node in ast.walk(function):
        match node:
            case ast.Attribute(value=ast.Name(id="sys"), attr="platform"):
                return True
            case ast.Call(func=ast.Name(id="hasattr")):
                return True
            case ast.ExceptHandler(type=caught) if caught is not None:
                names = set(ast.unparse(caught).strip("()").split(", "))
                if names & {"AttributeError", "ImportError", "ModuleNotFoundError"}:
                    return True
    return False


def test_no_device_is_asked_for_64_bit_numbers() -> None:
    found = {
        str(path.relative_to(SOURCE)): lines
        for path in SOURCE.rglob("*.py")
        if (lines := list(doubles(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found.keys() - ON_THE_CPU.keys() == set(), "use functional.precision.in_float64"
    assert ON_THE_CPU.keys() - found.keys() == set(), "these need no place in the list any more"


def test_nothing_is_called_that_only_posix_systems_have() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{each}"
        for path in SOURCE.rglob("*.py")
        for each in posix_only(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert found == []


def test_each_check_notices() -> None:
    tensors = "x.double()\ny = torch.zeros(2, dtype=torch.float64)\nz = np.float64(1)\n"
    assert list(doubles(ast.parse(tensors))) == [1, 2]
    plain = (
        "import resource\nfrom signal import SIGKILL\nos.killpg(1, signal.SIGALRM)\nPopen(pass_fds=(3,))\n"
        "def asks():\n    if sys.platform != 'win32':\n        os.fork()\n"
        "def tries():\n    try:\n        os.sysconf(1)\n    except (ValueError, AttributeError):\n        pass\n"
        "def neither():\n    os.fork()\n"
    )
    lines = [found.partition(":")[0] for found in posix_only(ast.parse(plain))]
    assert sorted(lines, key=int) == ["1", "2", "3", "3", "4", "14"]
