# ruff: noqa: E402
"""What the real Heat engine makes of templates: in one process, with no database, no network and no keystone.

It runs in .venv-heat, never in .venv. On standard input is a JSON list of cases ``{"template": path, "environments":
[path, ...], "parameters": {...}, "parameter_defaults": {...}}``, on standard output a list of results in the same
order: ``{"outputs": {...}, "resources": {name: {"type": ..., "properties": {...}}}}``, or ``{"error": text}`` for what
Heat refuses. Values are resolved as in a stack that was created: parameters, functions, and outputs of nested
templates. An attribute of any other resource is the text ``<resource.attribute>``, and its id ``<resource>``.
"""

import json
import logging
import sys
import typing
import warnings
from unittest import mock

warnings.simplefilter("ignore")  # Heat 27 still imports eventlet, which says at length that it should not

from heat.common import config, context  # noqa: F401  (config declares Heat's options)
from heat.engine import constraints, environment, function, resource, resources, stack, stk_defn, template
from heat.engine.resources import stack_resource
from heat.engine.resources.openstack.heat import none_resource, resource_group
from heat.engine.resources.openstack.nova import server
from heat.objects import service
from heatclient.common import template_utils
from oslo_config import cfg

Case = dict[str, typing.Any]

_MERGE_STRATEGIES = "parameter_merge_strategies"  # is for python-tripleoclient; the engine does not know it
_stacks: dict[int, stack.Stack] = {}  # by the definition that functions see


def load(case: Case) -> stack.Stack:
    """Return the stack of a case, its files and environments read and merged by Heat's own client."""
    files, body = template_utils.get_template_contents(case["template"])
    more, env = template_utils.process_multiple_environments_and_files(env_paths=case.get("environments", []))
    env.pop(_MERGE_STRATEGIES, None)
    for kind in ("parameters", "parameter_defaults"):
        env[kind] = {**env.get(kind, {}), **case.get(kind, {})}
    who = context.RequestContext(
        project_id="project", user_id="user", user_name="user", password="", auth_url="http://127.0.0.1:1/v3",
        is_admin=True, roles=["admin"],
    )  # fmt: skip
    texts = {k: v.decode() if isinstance(v, bytes) else v for k, v in {**files, **more}.items()}  # as JSON has them
    heat_template = template.Template(body, files=texts, env=environment.Environment(env))
    return stack.Stack(who, "tested", heat_template)


def attribute(res: resource.Resource, name: str, path: tuple[typing.Any, ...]) -> object:
    """Return the value of ``get_attr`` for a created resource."""
    value: typing.Any
    if isinstance(res, resource_group.ResourceGroup) and res.type() != "OS::Heat::ResourceChain":
        members = child(res)
        names = sorted(members.resources)
        if name == "refs_map":
            value = {n: reference(members[n]) for n in names}
        elif name == "refs":
            value = [reference(members[n]) for n in names]
        else:
            return [attribute(members[n], name, path) for n in names]
    elif isinstance(res, stack_resource.StackResource):
        nested = child(res)
        if res.type() == "OS::Heat::ResourceChain":
            children = sorted(nested.resources.items(), key=lambda item: int(item[0]))
            return [attribute(r, name, path) for _, r in children]
        value = nested.outputs[name].get_value()
    elif res.type() == "OS::Heat::Value":
        value = res.properties["value"]
    elif isinstance(res, none_resource.NoneResource):
        return None
    elif name in res.properties:
        value = res.properties[name]
    else:
        return f"<{'.'.join(map(str, (res.name, name, *path)))}>"
    for step in path:
        value = value[int(step)] if isinstance(value, list) else value.get(step) if isinstance(value, dict) else None
    return typing.cast("object", value)


def reference(res: resource.Resource) -> object:
    """Return the value of ``get_resource`` for a created resource."""
    outputs = child(res).outputs if isinstance(res, stack_resource.StackResource) else {}
    return outputs["OS::stack_id"].get_value() if "OS::stack_id" in outputs else f"<{res.name}>"


def child(res: stack_resource.StackResource) -> stack.Stack:
    """Return the nested stack of a resource, validated, with its resolved properties as parameters."""
    if not hasattr(res, "tested"):
        res.tested = res._parse_nested_stack("nested", res.child_template(), res.child_params())
        check(res.tested)
    return res.tested


def check(of: stack.Stack) -> None:
    """Validate like the engine before it creates anything, and again when the values are known."""
    with mock.patch.object(resource.Resource, "is_service_available", return_value=(True, None)):
        of.validate()
    _stacks[id(of.defn)] = of
    for res in of.dependencies:
        res.properties.validate(with_value=True)
        if isinstance(res, stack_resource.StackResource):
            child(res)


class Created(stk_defn.ResourceProxy):
    """A resource as functions see it after its creation."""

    __slots__ = ("resource",)
    action, status = "CREATE", "COMPLETE"

    def FnGetRefId(self) -> object:
        """For ``get_resource``."""
        return reference(self.resource)

    def FnGetAtt(self, attr: str, *path: typing.Any) -> object:
        """For ``get_attr``."""
        return attribute(self.resource, attr, path)


def see_created(definition: stk_defn.StackDefinition, name: str) -> stk_defn.ResourceProxy:
    """Return the resource called ``name``, once its stack was validated; stands in for StackDefinition.__getitem__."""
    proxy = original_getitem(definition, name)
    if id(definition) not in _stacks:
        return proxy
    created = Created(name, proxy._definition, proxy._resource_data)
    created.resource = _stacks[id(definition)][name]
    return created


original_getitem = stk_defn.StackDefinition.__getitem__


def resolve(case: Case) -> dict[str, object]:
    """Return the result of one case."""
    try:
        of = load(case)
        check(of)
        return {
            "outputs": {name: output.get_value() for name, output in of.outputs.items()},
            "resources": {
                name: {"type": res.type(), "properties": function.resolve(res.t.properties(res.properties_schema).data)}
                for name, res in of.resources.items()
            },
        }
    except Exception as e:  # what Heat refuses, it refuses with two dozen kinds of exceptions
        import traceback

        traceback.print_exc()
        return {"error": f"{type(e).__name__}: {e}"}


def main() -> None:
    """Answer the cases of standard input."""
    logging.disable(logging.WARNING)
    cfg.CONF([], project="heat", default_config_files=[])
    resources.initialise()
    with (
        mock.patch.object(stk_defn.StackDefinition, "__getitem__", see_created),
        mock.patch.object(resource.Resource, "rpc_client", return_value=None),  # a group would ask for members it has
        # Whether the cloud has such an image, flavor or network nobody can say here.
        mock.patch.object(constraints.CustomConstraint, "_is_valid", return_value=True),
        mock.patch.object(server.Server, "_validate_image_flavor"),
        mock.patch.object(server.Server, "translation_rules", return_value=[]),
        mock.patch.object(service.Service, "active_service_count", return_value=1),  # a chain asks the database
    ):
        print(json.dumps([resolve(case) for case in json.load(sys.stdin)], default=str))


if __name__ == "__main__":
    main()
