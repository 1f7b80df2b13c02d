"""A deployment that Heat made for this node: its inputs, which results Heat already has, and sending a result.

Heat accepts one signal for a deployment and ignores later ones, until it creates the deployment again
(heat/engine/service_software_config.py, signal_software_deployment). os-refresh-config carries out a failed deployment
at each run until it succeeds, but Heat does not learn of that. So an operator's fix takes effect at once, and the next
stack update finds the node configured.

Two programs can carry out a deployment: 55-heat-config of heat-agents, which runs ``om-agent hook``; or, without
heat-agents, ``om-agent signal``. heat-agents keep what they did in their own state files.
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
_RESULTS_FILE = f"{layout.STATE_DIR}/deployments.json"
_MOST_RESULTS = 20  # deployments whose results the file keeps
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SECONDS = 30.0  # time limit for an answer of Heat or Keystone
_MAX_ANSWER = 4 * 2**20  # bytes; Keystone's catalogue has about 10 KiB
_GENERATION_DIGITS = 12

Deployment = typing.Mapping[str, object]


def inputs(deployment: Deployment) -> dict[str, object]:
    """Return the deployment's inputs by name: its author's, and Heat's own, which begin with ``deploy_``."""
    rows = deployment.get("inputs")
    found: dict[str, object] = {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("name"), str):
            found[row["name"]] = row.get("value")
    return found


def identity(deployment: Deployment) -> str:
    """Return the deployment's id; '' when no file could have that name."""
    found = deployment.get("id")
    return found if isinstance(found, str) and _ID.fullmatch(found) else ""


def generation(raw: object, key: bytes) -> str:
    """Return a name for metadata. On one node, the same metadata always has the same name.

    :param key: secret of this node. Without it, nobody can guess passwords by comparing names.
    """
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()[:_GENERATION_DIGITS]


# -- results that Heat has ---------------------------------------------------------------------------------------------


def status_told(root: pathlib.Path, deployment: Deployment) -> int | None:
    """Return the status code of the agent's last run of a deployment that it reported to Heat; None without one."""
    name = identity(deployment)
    return _statuses(root).get(name) if name else None


def note(root: pathlib.Path, deployment: Deployment, status: int) -> None:
    """Store the status code for the next run. The caller holds the lock."""
    name = identity(deployment)
    statuses = _statuses(root)
    statuses.pop(name, None)
    statuses[name] = status
    newest = list(statuses.items())[-_MOST_RESULTS:]
    text = json.dumps(dict(newest), indent=2) + "\n"
    files.write(files.on_disk(root, _RESULTS_FILE), text.encode(), 0o600)


def _statuses(root: pathlib.Path) -> dict[str, int]:
    """Return the stored status codes by the deployment's id, the oldest first."""
    try:
        found = json.loads(files.read(files.on_disk(root, _RESULTS_FILE)) or b"{}")
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: status for name, status in found.items() if isinstance(status, int)}


def by_heat_config(root: pathlib.Path, deployment: Deployment) -> int | None:
    """Return the status code that heat-agents sent to Heat; 1 if they were interrupted, None if they did not run."""
    name = identity(deployment)
    if not name or files.read(_heat_config(root, name)) is None:
        return None
    text = files.read(_heat_config(root, f"{name}.notify")) or b""
    try:
        # heat-agents overwrite an older answer in place. If that was longer, its end is still in the file.
        answer, _ = json.JSONDecoder().raw_decode(text.decode())
        return int(answer[STATUS])
    except (OSError, ValueError, LookupError, TypeError):
        return errors.EXIT_APPLY_FAILED


def try_again(root: pathlib.Path, deployment: Deployment) -> None:
    """Make heat-agents run the deployment again: remove the file of its id, as their documentation advises."""
    name = identity(deployment)
    paths = [_heat_config(root, name), _heat_config(root, f"{name}.notify")]
    problems = access.hazards(root, [f"{HEAT_CONFIG_DIR}/{path.name}" for path in paths])
    if problems:
        raise errors.NotReady(problems)
    for path in paths:
        files.remove(path)


def _heat_config(root: pathlib.Path, name: str) -> pathlib.Path:
    return files.on_disk(root, f"{HEAT_CONFIG_DIR}/{name}.json")


# -- sending -----------------------------------------------------------------------------------------------------------


def wants_signal(deployment: Deployment) -> bool:
    """Return whether Heat waits for a signal. With ``signal_transport: NO_SIGNAL`` it does not."""
    given = inputs(deployment)
    return bool(given.get("deploy_signal_id") or given.get("deploy_auth_url") or given.get("deploy_queue_id"))


def tell(deployment: Deployment, answer: str) -> None:
    """Send the result to Heat in the way that the deployment's inputs define.

    :param answer: the text that the hook prints.
    :raises om_agent.errors.ApplyFailed: when Heat did not get it. The sentence holds no URL, since that may be secret.
    """
    given = {name: value for name, value in inputs(deployment).items() if isinstance(value, str)}
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
    """Log in to Keystone as the deployment's user; return a token and the URL of Heat."""
    user = {"id": given.get("deploy_user_id", ""), "password": given.get("deploy_password", "")}
    body = {
        "auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"id": given.get("deploy_project_id", "")}},
        }
    }
    base = re.sub(r"/v[23][.0]*$", "", given.get("deploy_auth_url", "").rstrip("/"))
    headers, answer = _request("Keystone", "POST", f"{base}/v3/auth/tokens", json.dumps(body).encode())
    try:
        catalog = json.loads(answer)["token"]["catalog"]
        urls = list(_public_urls(catalog, given.get("deploy_region_name")))
        return headers["X-Subject-Token"], urls[0].rstrip("/")
    except (ValueError, LookupError, TypeError):
        raise _not_sent("Keystone", "its answer names no public endpoint of the service orchestration") from None


def _public_urls(catalog: typing.Any, region: str | None) -> typing.Iterator[str]:
    """Yield the public URLs of Heat in a region, from Keystone's catalogue."""
    for service in catalog:
        if service["type"] != "orchestration":
            continue
        for endpoint in service["endpoints"]:
            is_here = region in (None, "", endpoint.get("region_id"), endpoint.get("region"))
            if endpoint["interface"] == "public" and is_here:
                yield str(endpoint["url"])


def _request(who: str, verb: str, url: str, body: bytes, token: str = "") -> tuple[typing.Mapping[str, str], bytes]:
    if not url.lower().startswith(("http://", "https://")):
        raise _not_sent(who, "its address in the deployment's inputs is no http or https URL")
    # These import email and ssl too, which is a third of all that the agent imports otherwise.
    import http.client
    import urllib.error
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        """Refuses redirects: the signal must go to the URL in the metadata, or nowhere."""

        def redirect_request(self, *_: object) -> None:
            return None

    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    headers |= {"X-Auth-Token": token} if token else {}
    try:
        request = urllib.request.Request(url, body, headers, method=verb)
        with urllib.request.build_opener(NoRedirect).open(request, timeout=_SECONDS) as response:
            return response.headers, response.read(_MAX_ANSWER)
    except urllib.error.HTTPError as e:
        raise _not_sent(who, f"it answered {e.code}") from None
    except urllib.error.URLError as e:
        reason = e.reason.strerror if isinstance(e.reason, OSError) else None
        raise _not_sent(who, (reason or "it cannot be reached").lower()) from None
    except OSError:
        raise _not_sent(who, "it did not answer in time") from None
    except (ValueError, http.client.InvalidURL):
        raise _not_sent(who, "its address in the deployment's inputs is no URL") from None
    except http.client.HTTPException:
        raise _not_sent(who, "the program at its address does not speak HTTP") from None


def _not_sent(who: str, why: str) -> errors.ApplyFailed:
    return errors.ApplyFailed(
        f"The agent could not send the result of the deployment to Heat: {who}: {why}. The next run of"
        " os-refresh-config tries again."
    )
