"""Programs that stand for puppet and saslpasswd2, and do what a test tells them."""

from __future__ import annotations

import json
import pathlib
import sys

# Does what the puppet module would, as far as the agent looks. The file `behaviour` next to it says what else:
#   good                    all files are edited
#   slow                    it then takes a second
#   hang                    the first file is edited, and it never ends
#   fail                    the first file is edited, and it says why it stopped
#   lie                     nothing is edited, and it reports changes
#   nothing                 nothing is edited, and it reports so
#   nothing and no word     nothing is edited, and there is no report
#   compile error           nothing is edited, and there is no report of resources
#   good code, bad report   all files are edited; the report names a failure
#   half a file             the second file is cut off, and it says so
#   killed, hangs           the second file is cut off, and it ends by a signal, or never
#   exit 4, exit 6          all files are edited, and it ends with this code
#   waits for PATH          the first file is edited; it goes on when PATH is there
#   runs COMMAND            the first file is edited, the command is run, and it fails
#   then COMMAND            all files are edited, and the command is run
_PUPPET = r"""#!@PYTHON@ -IS
import json, os, pathlib, signal, sys, time

sys.path.insert(0, @AGENT@)
from om_agent import ini

here = pathlib.Path(__file__).parent
behaviour = (here / "behaviour").read_text()
options = dict(a[2:].split("=", 1) for a in sys.argv if a.startswith("--") and "=" in a)
with open(here / "puppet.calls", "a") as stream:
    print(json.dumps([os.getpid(), sys.argv, dict(os.environ)]), file=stream)


def say(message):
    with open(options["logdest"], "a") as stream:
        print(json.dumps({"level": "err", "message": message, "source": "Puppet"}), file=stream)


def finish(code, failed=0):
    report = {"resources": {"failed": failed, "failed_to_restart": 0}}
    pathlib.Path(options["lastrunfile"]).write_text(json.dumps(report))
    sys.exit(code)


def edit(path, wanted, half=False):
    path = pathlib.Path(path)
    text = path.read_bytes().decode(errors="surrogateescape") if path.exists() else ""
    settings = [(section, key, value) for section, keys in wanted["settings"].items() for key, value in keys.items()]
    text = ini.edit(text, settings, wanted.get("style", ini.OSLO), wanted.get("removable_sections", ()))
    data = text.encode(errors="surrogateescape")
    path.write_bytes(data[: len(data) // 2] if half else data)
    path.chmod(int(wanted["mode"], 8))


with open(options["hiera_config"]) as stream:
    datadir = next(json.loads(line.split(": ", 1)[1]) for line in stream if "datadir" in line)
hieradata = (pathlib.Path(datadir) / "messaging.json").read_text("utf-8")
config_files = list(json.loads(hieradata.replace("%{literal('%')}", "%"))["om_messaging::config_files"].items())

if behaviour == "compile error":
    say("Could not find class")
    sys.exit(1)
if behaviour == "nothing and no word":
    sys.exit(0)
if behaviour in ("nothing", "lie"):
    finish(2 if behaviour == "lie" else 0)
if behaviour == "good code, bad report":
    for path, wanted in config_files:
        edit(path, wanted)
    finish(2, failed=1)

for path, wanted in config_files[:1]:
    edit(path, wanted)
if behaviour == "fail":
    say("No space left in the middle")
    finish(4, failed=1)
if behaviour in ("half a file", "killed", "hangs"):
    edit(*config_files[1], half=True)
if behaviour == "half a file":
    say("could not write everything")
    finish(4, failed=1)
if behaviour == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour in ("hang", "hangs"):
    (here / "started").touch()
    time.sleep(600)
if behaviour.startswith("waits for "):
    (here / "started").touch()
    while not os.path.exists(behaviour[len("waits for "):]):
        time.sleep(0.02)
if behaviour.startswith("runs "):
    os.system(behaviour[len("runs "):])
    finish(4, failed=1)
for path, wanted in config_files[1:]:
    edit(path, wanted)
if behaviour == "slow":
    (here / "started").touch()
    time.sleep(1)
if behaviour in ("exit 4", "exit 6"):
    say("change from [redacted] to [redacted] failed")
    finish(int(behaviour[len("exit "):]), failed=1)
if behaviour.startswith("then "):
    os.system(behaviour[len("then "):])
finish(2)
"""

# The real one needs a plugin and makes other bytes each time. Both databases hold passwords as they are.
_SASLPASSWD = r"""#!@PYTHON@ -IS
import sys

options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
with open(options["-f"], "ab") as stream:
    stream.write(sys.argv[-1].encode() + b"@" + options["-u"].encode() + b" " + sys.stdin.buffer.read() + b"\n")
"""


def install(directory: pathlib.Path, agent: pathlib.Path, python: str = sys.executable) -> None:
    """Write both programs into a directory.

    :param agent: the directory that holds the package om_agent.
    """
    for name, text in (("puppet", _PUPPET), ("saslpasswd2", _SASLPASSWD)):
        (directory / name).write_text(text.replace("@PYTHON@", python).replace("@AGENT@", repr(str(agent))))
        (directory / name).chmod(0o755)
    behave(directory, "good")


def behave(directory: pathlib.Path, behaviour: str) -> None:
    """Tell puppet what to do from its next start on."""
    (directory / "behaviour").write_text(behaviour)


def calls(directory: pathlib.Path) -> list[tuple[int, list[str], dict[str, str]]]:
    """Return the process id, the arguments and the environment of each puppet that was started."""
    path = directory / "puppet.calls"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
