"""`plaudit completion SHELL`: what makes a shell complete commands and flags."""

from __future__ import annotations

from plaudit.cli.parser import Parser, show

ABOUT = """A script that makes the shell complete commands, and the flags of those that train:

  bash  source <(plaudit completion bash)              # in ~/.bashrc
  zsh   source <(plaudit completion zsh)               # in ~/.zshrc, after compinit
  fish  plaudit completion fish | source               # in ~/.config/fish/config.fish"""

BASH = """\
_plaudit() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
  if [ "$COMP_CWORD" -eq 1 ]; then words="{commands}"
  elif [[ "$word" == -* ]]; then
    case "${{COMP_WORDS[1]}}" in
{cases}
    esac
  fi
  COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _plaudit plaudit
"""


def run(command: str, argv: list[str]) -> int:
    """Print the script of a shell."""
    parser = Parser("completion", ABOUT)
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    shell = parser.parse_args(argv).shell
    show(
        _fish()
        if shell == "fish"
        else ("autoload -U bashcompinit && bashcompinit\n" if shell == "zsh" else "") + _bash()
    )
    return 0


def _flags() -> dict[str, list[str]]:
    """Command -> its flags, for commands whose flags are settings."""
    from plaudit.config.fields import settings
    from plaudit.jobs.registry import COMMANDS

    # Written into the script once, since a command that loads torch at every press of the key would take seconds.
    return {name: sorted({s.flag for s in settings(row.job)}) for name, row in COMMANDS.items()}


def _names() -> dict[str, str]:
    from plaudit.cli.main import COMMANDS

    return {name: help for name, (_, help) in COMMANDS.items()}


def _bash() -> str:
    cases = "\n".join(f'      {name}) words="{" ".join(flags)}";;' for name, flags in _flags().items())
    return BASH.format(commands=" ".join(_names()), cases=cases)


def _fish() -> str:
    lines = [
        f"complete -c plaudit -n __fish_use_subcommand -a {name} -d {_quoted(help)}"
        for name, help in _names().items()
    ]
    for name, flags in _flags().items():
        lines += [
            f"complete -c plaudit -n '__fish_seen_subcommand_from {name}' -l {flag.removeprefix('--')}"
            for flag in flags
        ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "\\'") + "'"
