"""The Debian roots of ``tests/services``: nova, neutron, cinder, MariaDB and RabbitMQ as packaged, databases filled.

::

    python -m testbed.service_root bookworm     # make it, print its path last

The services' own settings are in a second configuration file, which Debian's start scripts append to the command line
because ``/etc/default/SERVICE`` asks for it. The files that the agent edits are as the packages left them.
"""

from __future__ import annotations

import argparse
import collections.abc
import sys
import time

from testbed import debian_root, errors

RELEASES = ("bookworm", "trixie")
SETTINGS = "/etc/om-services"  # inside the root
REPORT_SECONDS = 5

_PACKAGES = (
    # With nova-compute-ironic, nova-compute does not bring libvirt and qemu. The driver is chosen in our settings.
    "nova-compute-ironic", "nova-compute", "nova-conductor",
    "neutron-api", "cinder-scheduler", "cinder-volume",
    "mariadb-server", "rabbitmq-server",
    "iproute2", "puppet-agent", "puppet-module-puppetlabs-inifile", "puppet-module-puppetlabs-stdlib", "sasl2-bin",
    "python3-cryptography", "python3-jinja2", "python3-pyngus", "python3-qpid-proton", "python3-yaml",
)  # fmt: skip

# One process each: the more peers one process has, the sooner it meets a limit.
_PREPARE = f"""
mkdir {SETTINGS}
cat >{SETTINGS}/nova.conf <<'END'
[DEFAULT]
compute_driver = fake.FakeDriver
report_interval = {REPORT_SECONDS}
[api]
auth_strategy = noauth2
[api_database]
connection = mysql+pymysql://openstack:openstack@127.0.0.1/nova_api
[conductor]
workers = 1
[database]
connection = mysql+pymysql://openstack:openstack@127.0.0.1/nova
[notifications]
notification_format = both
[placement]
auth_type = none
endpoint_override = http://127.0.0.1:8778
[vnc]
enabled = false
END
cat >{SETTINGS}/neutron.conf <<'END'
[DEFAULT]
auth_strategy = noauth
notify_nova_on_port_status_changes = false
notify_nova_on_port_data_changes = false
service_plugins =
[database]
connection = mysql+pymysql://openstack:openstack@127.0.0.1/neutron
END
cat >{SETTINGS}/cinder.conf <<'END'
[DEFAULT]
auth_strategy = noauth
enabled_backends = fake
report_interval = {REPORT_SECONDS}
[database]
connection = mysql+pymysql://openstack:openstack@127.0.0.1/cinder
[fake]
volume_driver = cinder.tests.fake_driver.FakeLoggingVolumeDriver
END
for name in nova-conductor nova-compute cinder-scheduler cinder-volume; do
    echo "DAEMON_ARGS=\\"\\$DAEMON_ARGS --config-file={SETTINGS}/${{name%-*}}.conf\\"" >>/etc/default/$name
done
echo "PYARGV=\\"\\$PYARGV --config-file={SETTINGS}/neutron.conf\\"" >>/etc/default/neutron-server
# neutron-api has eventlet patch threads, and uWSGI serves with 32 real ones. A request in another thread than the first
# then waits for ever for the AMQP 1.0 driver ("greenlet.error: cannot switch to a different thread").
sed -i 's/^processes = .*/processes = 1/; s/^threads = .*/threads = 1/' /etc/neutron/neutron-api-uwsgi.ini

cat >/etc/mysql/mariadb.conf.d/90-om-services.cnf <<'END'
[mysqld]
innodb_flush_log_at_trx_commit = 0
max_connections = 500
skip-name-resolve
END
echo "I: databases"
install -d -o mysql -g mysql /run/mysqld
mariadbd --user=mysql &
for _ in {{1..150}}; do
    mariadb-admin ping >/dev/null 2>&1 && break
    sleep 0.2
done
mariadb -e "create user openstack@'127.0.0.1' identified by 'openstack'; grant all on *.* to openstack@'127.0.0.1'"
for name in nova nova_cell0 nova_api neutron cinder; do
    mariadb -e "create database $name character set utf8"
done
# create_cell checks its template against a URL. Services read that of their own files.
printf '[DEFAULT]\\ntransport_url = rabbit://user:password@host:5672/\\n' >/tmp/url.conf
as() {{ # SERVICE COMMAND...
    local user=$1
    shift
    setpriv --reuid="$user" --regid="$user" --init-groups env HOME="/var/lib/$user" "$@"
}}
nova() {{ # COMMAND...
    as nova nova-manage --config-file=/etc/nova/nova.conf --config-file={SETTINGS}/nova.conf \\
        --config-file=/tmp/url.conf "$@"
}}
others() {{
    as neutron neutron-db-manage --config-file=/etc/neutron/neutron.conf \\
        --config-file=/etc/neutron/plugins/ml2/ml2_conf.ini --config-file={SETTINGS}/neutron.conf upgrade heads
    as cinder cinder-manage --config-file=/etc/cinder/cinder.conf --config-file={SETTINGS}/cinder.conf db sync
}}
others &
others=$!
nova api_db sync
nova cell_v2 map_cell0 --database_connection mysql+pymysql://openstack:openstack@127.0.0.1/nova_cell0
nova cell_v2 create_cell --name cell1 \\
    --database_connection '{{scheme}}://{{username}}:{{password}}@{{hostname}}/{{path}}' \\
    --transport-url '{{scheme}}://{{username}}:{{password}}@{{hostname}}:{{port}}/{{path}}?{{query}}'
nova db sync
wait $others
mariadb-admin shutdown
wait
# What the programs above wrote.
find /var/log/nova /var/log/neutron /var/log/cinder -type f -delete
"""


def recipe(release: str) -> debian_root.Recipe:
    """Return what is in the root of a release."""
    return debian_root.Recipe("services", release, _PACKAGES, _PREPARE)


def main(argv: collections.abc.Sequence[str] | None = None) -> int:
    """Make a root; returns the exit code."""
    parser = argparse.ArgumentParser(prog="testbed.service_root", description=__doc__.partition("\n")[0])
    parser.add_argument("release", choices=RELEASES)
    release = parser.parse_args(argv).release
    start = time.monotonic()

    def show(step: str) -> None:
        elapsed = time.monotonic() - start
        print(f"{release}: {elapsed // 60:.0f}:{elapsed % 60:02.0f} {step}", file=sys.stderr, flush=True)

    try:
        path = debian_root.make(recipe(release), show)
    except errors.TestbedError as e:
        print(f"testbed.service_root: {e}\n{e.detail}", file=sys.stderr)
        return 1
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
