"""A deployment that Heat made for this node: which configuration it is, who has told Heat what became of it, telling.

Heat hears of a deployment once: what comes after the first signal it passes over, until it has made the deployment anew
(heat/engine/service_software_config.py, signal_software_deployment). A deployment that failed is carried out again at
every run of os-refresh-config until it succeeds, though Heat is not told: what the operator fixes is right at once, and
the next stack update finds it so.

Two programs may be the one that carries out a deployment: heat-agents' 55-heat-config, which runs ``om-agent hook``, or
``om-agent signal``, where those are not installed. What the first has done is in its own state files.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import pathlib
import re
import typing
import urllib.parse

from om_agent import errors, kinds
from om_agent.apply import access, files
from om_agent.plan import layout

HEAT_CONFIG_DIR = "/var/lib/heat-config/deployed"  # heat-agents, 55-heat-config: DEPLOYED_DIR
STATUS = "deploy_status_code"
_TOLD = f"{layout.STATE_DIR}/deployments.json"
_MOST_TOLD = 20  # deployments that are remembered
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECONDS = 30.0  # for an answer of Heat or Keystone
_MAX_ANSWER = 4 * 2**20  # bytes; a catalogue has some 10 KiB
_GENERATION_DIGITS = 12

Deployment = typing.Mapping[str, object]


def inputs(deployment: Deployment) -> dict[str, object]:
    """Return the deployment's inputs by name: those of its author, and Heat's own, which begin with ``deploy_``."""
    listed = deployment.get("inputs")
    rows = [i for i in listed if isinstance(i, dict)] if isinstance(listed, list) else []
    return {i["name"]: i.get("value") for i in rows if isinstance(i.get("name"), str)}


def identity(deployment: Deployment) -> str:
    """Return the deployment's id, '' when it is none that a file could be named after."""
    found = deployment.get("id")
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""


def generation(raw: object, key: bytes) -> str:
    """Return a name for metadata that is the same for the same metadata, on one node.

    :param key: this node's own, without which nobody can try passwords until they give the same name.
    """
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:_GENERATION_DIGITS]


# -- what was told ---------------------------------------------------------------------------------------------------


def status_told(root: pathlib.Path, deployment: Deployment) -> int | None:
    """Return the status code that this program told Heat, or has come to since; None when it has told nothing."""
    name = identity(deployment)
    return _statuses(root).get(name) if name else None


def note(root: pathlib.Path, deployment: Deployment, status: int) -> None:
    """Remember the status code for the next run. The caller holds the lock."""
    known = _statuses(root)
    known.pop(identity(deployment), None)
    kept = dict([*known.items(), (identity(deployment), status)][-_MOST_TOLD:])
    files.write(files.on_disk(root, _TOLD), json.dumps(kept, indent=2).encode() + b"\n", 0o600)


def _statuses(root: pathlib.Path) -> dict[str, int]:
    try:
        found = json.loads(files.read(files.on_disk(root, _TOLD)) or b"{}")
    except (OSError, ValueError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, int)} if isinstance(found, dict) else {}


def by_heat_config(root: pathlib.Path, deployment: Deployment) -> int | None:
    """Return the status code that heat-agents told Heat, 1 when they were cut short; None when they have not run it."""
    name = identity(deployment)
    if not name or files.read(_heat_config(root, name)) is None:
        return None
    text = files.read(_heat_config(root, f"{name}.notify")) or b""
    try:
        # They write over an older answer without cutting off what is left of a longer one.
        answer, _ = json.JSONDecoder().raw_decode(text.decode())
        return int(answer[STATUS])
    except (OSError, ValueError, LookupError, TypeError):
        return errors.EXIT_APPLY_FAILED


def try_again(root: pathlib.Path, deployment: Deployment) -> None:
    """Make heat-agents run the deployment once more, as they themselves advise: without the file of its id."""
    paths = [_heat_config(root, f"{identity(deployment)}{kind}") for kind in ("", ".notify")]
    problems = access.hazards(root, [f"{HEAT_CONFIG_DIR}/{path.name}" for path in paths])
    if problems:
        raise errors.NotReady(problems)
    for path in paths:
        files.remove(path)


def _heat_config(root: pathlib.Path, name: str) -> pathlib.Path:
    return files.on_disk(root, f"{HEAT_CONFIG_DIR}/{name}.json")


# -- telling ---------------------------------------------------------------------------------------------------------


def wants_signal(deployment: Deployment) -> bool:
    """Return whether Heat waits to be told: not with ``signal_transport: NO_SIGNAL``."""
    given = inputs(deployment)
    return bool(given.get("deploy_signal_id") or given.get("deploy_auth_url") or given.get("deploy_queue_id"))


def tell(deployment: Deployment, answer: str) -> None:
    """Tell Heat, the way that the deployment's inputs say.

    :param answer: what the hook prints.
    :raises om_agent.errors.ApplyFailed: when Heat was not told. No URL is in the sentence: it may be a secret itself.
    """
    given = {k: v for k, v in inputs(deployment).items() if isinstance(v, str)}
    if given.get("deploy_queue_id"):
        raise errors.NotReady([kinds.problem("deploy_signal_transport", "signal-zaqar")])
    if given.get("deploy_signal_id"):  # a signed URL: CFN_SIGNAL and TEMP_URL_SIGNAL
        verb = "PUT" if given.get("deploy_signal_verb") == "PUT" else "POST"
        _request("Heat", verb, given["deploy_signal_id"], answer.encode())
        return
    token, endpoint = _log_in(given)
    stack = urllib.parse.quote(given.get("deploy_stack_id", ""))
    resource = urllib.parse.quote(given.get("deploy_resource_name", ""), safe="")
    _request("Heat", "POST", f"{endpoint}/stacks/{stack}/resources/{resource}/signal", answer.encode(), token)


def _log_in(given: typing.Mapping[str, str]) -> tuple[str, str]:
    """Return a token of the deployment's own user, and where Heat is."""
    user = {"id": given.get("deploy_user_id", ""), "password": given.get("deploy_password", "")}
    body = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"id": given.get("deploy_project_id", "")}},
        }
    }
    base = re.sub(r"/v[23][.0]*$", "", given.get("deploy_auth_url", "").rstrip("/"))
    headers, answer = _request("Keystone", "POST", f"{base}/v3/auth/tokens", json.dumps(body).encode())
    region = given.get("deploy_region_name")
    try:
        urls = [
            str(e["url"])
            for service in json.loads(answer)["token"]["catalog"]
            if service["type"] == "orchestration"
            for e in service["endpoints"]
            if e["interface"] == "public" and region in (None, "", e.get("region_id"), e.get("region"))
        ]
        return headers["X-Subject-Token"], urls[0].rstrip("/")
    except (ValueError, LookupError, TypeError):
        raise _untold("Keystone", "its answer names no public endpoint of the service orchestration") from None


def _request(who: str, verb: str, url: str, body: bytes, token: str = "") -> tuple[typing.Mapping[str, str], bytes]:
    if not url.lower().startswith(("http://", "https://")):
        raise _untold(who, "its address in the deployment's inputs is no http or https URL")
    # With email and ssl, which these import, a third of what the agent would have to import otherwise.
    import http.client
    import urllib.error
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        """A signal goes where Heat said, or nowhere: what a redirect names was not in the metadata."""

        def redirect_request(self, *_: object) -> None:
            return None

    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    headers |= {"X-Auth-Token": token} if token else {}
    try:
        request = urllib.request.Request(url, body, headers, method=verb)
        with urllib.request.build_opener(NoRedirect).open(request, timeout=_SECONDS) as response:
            return response.headers, response.read(_MAX_ANSWER)
    except urllib.error.HTTPError as e:
        raise _untold(who, f"it answered {e.code}") from None
    except urllib.error.URLError as e:
        reason = e.reason.strerror if isinstance(e.reason, OSError) else None
        raise _untold(who, (reason or "it cannot be reached").lower()) from None
    except OSError:
        raise _untold(who, "no answer in time") from None
    except (ValueError, http.client.InvalidURL):
        raise _untold(who, "its address in the deployment's inputs is no URL") from None
    except http.client.HTTPException:
        raise _untold(who, "what answered there does not speak HTTP") from None


def _untold(who: str, why: str) -> errors.ApplyFailed:
    return errors.ApplyFailed(
        f"Heat was not told what became of the deployment: {who}: {why}. The next run of os-refresh-config tries again."
    )
