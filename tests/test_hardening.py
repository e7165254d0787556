"""How the service is shut in where it is deployed: the unit of systemd, the container, the network.

No systemd and no container runtime is needed here. Where systemd-analyze, nft or nginx are
installed they judge as well.
"""

import http.client
import re
import shutil
import socket
import ssl
import subprocess
import time
from contextlib import closing, suppress
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import load
from app.serve import PARTS
from app.settings import ConfigError

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "deploy/systemd/call-archive.service"
DROP_IN = ROOT / "deploy/systemd/servers.conf"
WATCHER = ROOT / "deploy/systemd/call-archive-watch.service"

EXPOSURE = 20
"""What `systemd-analyze security` may find at most, in tenths."""

SHUT = {
    "UMask": "0077",
    "ProtectSystem": "strict",
    "PrivateIPC": "yes",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "DevicePolicy": "closed",
    "SystemCallArchitectures": "native",
    "RestrictAddressFamilies": "AF_UNIX AF_INET AF_INET6",
    "IPAddressDeny": "any",
    "SocketBindDeny": "any",
    "ProtectProc": "invisible",
    "ProcSubset": "pid",
    "LimitCORE": "0",
    "MemorySwapMax": "0",
    "StateDirectoryMode": "0700",
} | dict.fromkeys(
    [
        "ProtectHome",
        "PrivateTmp",
        "PrivateDevices",
        "PrivateUsers",
        "PrivateMounts",
        "ProtectClock",
        "ProtectControlGroups",
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectKernelModules",
        "ProtectKernelTunables",
        "NoNewPrivileges",
        "LockPersonality",
        "MemoryDenyWriteExecute",
        "RestrictRealtime",
        "RestrictSUIDSGID",
        "RemoveIPC",
    ],
    "yes",
)


def directives(page: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", page.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize(("unit", "user"), [(UNIT, "call-archive"), (WATCHER, "asterisk")])
def test_the_unit_shuts_the_service_in(unit: Path, user: str) -> None:
    found = directives(unit)
    assert {name: found.get(name, [None])[-1] for name in SHUT} == SHUT
    assert found["User"] == [user]
    calls = found["SystemCallFilter"]
    assert calls[0] == "@system-service"
    assert {"@privileged", "@resources"} <= set(calls[1].removeprefix("~").split())


def test_the_unit_lets_the_workers_shut_themselves_in_further() -> None:
    found = directives(UNIT)
    assert {"user", "net"} <= set(found["RestrictNamespaces"][0].split())
    allowed = " ".join(found["SystemCallFilter"])
    assert {"seccomp", "landlock_restrict_self"} <= set(allowed.split())
    assert found["OOMPolicy"] == ["continue"]


def test_the_unit_ends_the_service_as_it_wants_to_be_ended() -> None:
    found = directives(UNIT)
    assert (found["KillMode"], found["TimeoutStopSec"]) == (["mixed"], ["60"])
    assert found["RestartPreventExitStatus"] == ["2"]
    assert (found["Restart"], found["StartLimitIntervalSec"]) == (["always"], ["0"])
    assert "StartLimitBurst" not in found


def test_the_folder_of_a_unix_socket_is_the_units() -> None:
    """Nothing else of the system can be written; the socket's file is for the group (0660)."""
    waiting = re.findall(r"^#(RuntimeDirectory\w*)=(\S+)$", UNIT.read_text(), re.MULTILINE)
    assert dict(waiting) == {"RuntimeDirectory": "archive", "RuntimeDirectoryMode": "0750"}
    pages = [ROOT / "docs/operations.md", ROOT / "deploy/network/README.md", ROOT / "config.toml"]
    for page in pages:
        sockets = set(re.findall(r"unix:(/[\w./]+)\.sock", page.read_text()))
        assert sockets == {"/run/archive/ingest"}
    assert all("RuntimeDirectory" in page.read_text() for page in pages[:2])


def test_the_watcher_gets_its_token_as_a_credential_and_may_bind_nothing() -> None:
    found = directives(WATCHER)
    assert found["LoadCredential"] == ["token:/etc/call-archive/watch.token"]
    assert "ARCHIVE_TOKEN_FILE=%d/token" in found["Environment"]
    assert not re.search(r"^Environment=ARCHIVE_TOKEN=", WATCHER.read_text(), re.MULTILINE)
    assert (found["RestrictNamespaces"], found.get("SocketBindAllow")) == (["yes"], None)
    assert found["RestartPreventExitStatus"] == ["2"]
    # Five starts in ten seconds, at which systemd gives up by itself, are never reached.
    assert int(found["RestartSec"][0]) >= 10


def test_secrets_reach_the_service_as_credentials_alone() -> None:
    text = UNIT.read_text() + DROP_IN.read_text()
    loaded = {value.split(":")[0] for value in directives(DROP_IN)["LoadCredential"]}
    given = set(re.findall(r"^Environment=ARCHIVE_\w+_FILE=%d/(\w+)$", text, re.MULTILINE))
    assert loaded == given == {"database_url", "access_key", "secret_key"}
    assert not re.search(r"(SECRET_KEY|ACCESS_KEY|DATABASE_URL)=", text)


GUIDE = (ROOT / "deploy/README.md").read_text()
COMMAND = ROOT / "deploy/systemd/archive"


def test_the_installed_configuration_names_the_folders_of_the_unit(tmp_path: Path) -> None:
    """And the unit none: a command that is run beside it would begin an archive of its own."""
    [edits] = re.findall(r"^ {4}(sed (?:.*\\\n)+.*) > /etc/call-archive/config.toml$", GUIDE, re.M)
    done = subprocess.run(["sh", "-c", edits], cwd=ROOT, capture_output=True, text=True, check=True)
    installed = tmp_path / "config.toml"
    installed.write_text(done.stdout)
    config = load(installed, {})
    folders = [config.server.data_dir, config.keys.store.parent, config.keys.root_file.parent]
    [kept] = directives(UNIT)["StateDirectory"]
    assert folders == [Path("/var/lib") / name for name in kept.split()]
    for page in (UNIT, DROP_IN, PART):
        set_there = re.findall(r"^Environment=(ARCHIVE_\w+)=.", page.read_text(), re.MULTILINE)
        assert [name for name in set_there if not name.endswith("_FILE")] == []


def test_on_servers_of_ones_own_a_command_without_a_login_begins_no_database(
    tmp_path: Path,
) -> None:
    """A second archive on the real ring would say that all is well."""
    installed = tmp_path / "config.toml"
    shutil.copy(ROOT / "config.toml", installed)
    [edit] = re.findall(r"^ {4}(sed -i .*) /etc/call-archive/config.toml$", GUIDE, re.MULTILINE)
    subprocess.run(["sh", "-c", f"{edit} {installed}"], check=True)
    lines = [ROOT / "config.toml", installed]
    before, after = (set(page.read_text().splitlines()) for page in lines)
    assert (before - after, after - before) == ({'url = "embedded"'}, {'url = ""'})
    with pytest.raises(ConfigError, match="must say where the database is"):
        load(installed, {})
    (tmp_path / "url").write_text("postgresql://archive@db/archive")
    named = {"ARCHIVE_DATABASE_URL_FILE": str(tmp_path / "url")}
    assert not load(installed, named).database.embedded


def deployed(tmp_path: Path) -> tuple[Path, Path]:
    """Where the script writes down what it gave systemd-run, and where secrets lie: under one that
    copies credentials as the real one does.
    """
    program, said = tmp_path / ".venv/bin/archive", tmp_path / "said"
    given, held = tmp_path / "etc", tmp_path / "held"
    for folder in (program.parent, given, held):
        folder.mkdir(parents=True)
    program.write_text('#!/bin/sh\nfor each in "$@"; do echo "$each"; done\nenv\n')
    (tmp_path / "systemd-run").write_text(
        f"""#!/bin/sh
        while [ "${{1#-}}" != "$1" ]; do
            case $1 in
                -p) echo "$2" >> {said}; what=${{2#LoadCredential=}}; shift 2 ;;
                *) echo "$1" >> {said}; shift; continue ;;
            esac
            [ ! -e "${{what#*:}}" ] || cp "${{what#*:}}" "{held}/${{what%%:*}}"
        done
        CREDENTIALS_DIRECTORY={held} exec "$@"\n"""
    )
    script = re.sub(r"^home=.*", f"home={tmp_path}", COMMAND.read_text(), flags=re.MULTILINE)
    (tmp_path / "archive").write_text(re.sub(r"(?m)^etc=.*", f"etc={given}", script))
    for each in ("systemd-run", "archive", ".venv/bin/archive"):
        (tmp_path / each).chmod(0o755)
    return said, given


@pytest.mark.parametrize("external", [False, True])
def test_a_command_has_the_user_the_configuration_and_the_secrets_of_the_service(
    external: bool, tmp_path: Path
) -> None:
    """And is described without its words: the description is in the system's journal."""
    (said, given), held = deployed(tmp_path), tmp_path / "held"
    loaded = sorted(load.split(":")[0] for load in directives(DROP_IN)["LoadCredential"])
    for name in loaded if external else ():
        (given / name).write_text(name)
    (tmp_path / "my.key").write_text("token")
    mine = {"PATH": f"{tmp_path}:/usr/bin:/bin", "ARCHIVE_TOKEN_FILE": "my.key"}
    words = [str(tmp_path / "archive"), "erase", "--reason", "request 4711"]
    for lost in ({"ARCHIVE_TOKEN": "cra_"}, {"ARCHIVE_TOKEN_FILE": "other.key"}):
        done = subprocess.run(words, env=mine | lost, cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (2, ""), "nothing is done without the token"
        assert "ARCHIVE_TOKEN_FILE" in done.stderr
    done = subprocess.run(words, env=mine, cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert lines[:5] == ["--config", f"{given}/config.toml", *words[1:]]
    told = dict(line.split("=", 1) for line in lines[5:] if re.match(r"ARCHIVE_\w+_FILE=", line))
    assert sorted(map(Path, told.values())) == sorted(
        held / name for name in [*(loaded if external else ()), "token"]
    )
    assert [Path(file).read_text() for file in told.values()] == [
        Path(file).name for file in told.values()
    ]
    environment = {name for name in told if name != "ARCHIVE_TOKEN_FILE"}
    settings = re.findall(r"^Environment=(\w+)=%d/", DROP_IN.read_text(), re.MULTILINE)
    assert environment == ({*settings} if external else set())
    words = said.read_text().splitlines()
    assert [each for each in words if each.startswith("--desc")] == ["--description=archive erase"]
    assert "request 4711" not in said.read_text()
    unit = directives(UNIT)
    # `--pty` beside `--pipe` is for a terminal alone: Ctrl-C ends the command by it.
    assert {"--pipe", "--pty", f"User={unit['User'][0]}", "UMask=0077"} <= {*words}
    for name in ("MemorySwapMax", "StateDirectoryMode"):
        assert f"{name}={unit[name][0]}" in words
    folders = {f"StateDirectory={name}" for name in unit["StateDirectory"][0].split()}
    assert {each for each in words if each.startswith("StateDirectory=")} == folders


@pytest.mark.parametrize("name", ["ARCHIVE_DATABASE_URL_FILE", "ARCHIVE_TOKEN_FILE"])
def test_a_command_without_a_secret_that_it_was_to_have_is_not_begun(
    name: str, tmp_path: Path
) -> None:
    said, _ = deployed(tmp_path)
    mine = {"PATH": f"{tmp_path}:/usr/bin:/bin", name: str(tmp_path / "nothing")}
    words = [str(tmp_path / "archive"), "migrate"]
    done = subprocess.run(words, env=mine, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"archive: the file that {name} names is not there\n"
    assert not said.exists()


PART = ROOT / "deploy/systemd/part.conf"
SEQUENCER = ROOT / "deploy/systemd/sequencer.conf"
SIGN_IN = ROOT / "deploy/systemd/sign-in.conf"
OTHERS = {
    "jobs": {"sequencer_login"},
    "ingest": set[str](),
    "retrieval": {"sequencer_login", "sign_in_login"},
    "operations": {"sequencer_login", "sign_in_login"},
}


def test_a_part_as_a_unit_has_its_own_login_alone() -> None:
    found = directives(PART)
    assert found["ExecStart"] == ["", directives(UNIT)["ExecStart"][0] + " --only %i"]
    text = PART.read_text() + SEQUENCER.read_text() + SIGN_IN.read_text()
    loaded = set(re.findall(r"^LoadCredential=(\w+):", text, re.MULTILINE))
    given = dict(re.findall(r"^Environment=ARCHIVE_([\w%]+)_FILE=%d/(\w+)$", text, re.MULTILINE))
    assert loaded == set(given.values())
    assert {name: file for name, file in given.items() if name.startswith("DATABASE")} == {
        "DATABASE_%i_LOGIN": "login",
        "DATABASE_SEQUENCER_LOGIN": "sequencer",
        "DATABASE_SIGN_IN_LOGIN": "sign_in",
    }
    assert "ARCHIVE_DATABASE_URL=" in found["Environment"]
    for part in PARTS:
        files = {f"ARCHIVE_{name.replace('%i', part)}": "postgresql://r@db/c" for name in given}
        files["ARCHIVE_OBJECTS_ENDPOINT"] = "https://s3.example.fi"
        logins = load(None, files | {"ARCHIVE_DATABASE_URL": ""}).database.logins
        assert {role for role, url in logins.items() if url} >= {"sequencer", "sign_in"}


def test_a_part_as_a_container_has_its_own_logins_alone() -> None:
    page = services("parts")
    assert set(page["services"]) == set(PARTS)
    for name, service in page["services"].items():
        assert service["command"] == ["serve", "--only", name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        own = {f"{name}_login"} | OTHERS[name]
        assert set(service["secrets"]) == own | {"access_key", "secret_key"}
        given = {
            value.removeprefix("/run/secrets/"): key
            for key, value in service["environment"].items()
            if key.endswith("_FILE")
        }
        assert set(given) == set(service["secrets"])
        assert given[f"{name}_login"] == f"ARCHIVE_DATABASE_{name.upper()}_LOGIN_FILE"
        assert service["environment"]["ARCHIVE_DATABASE_URL"] == ""


def test_parts_and_the_whole_are_told_the_same_of_the_store() -> None:
    [whole, *parts] = [
        {name: said for name, said in each["environment"].items() if "_OBJECTS_" in name}
        for each in (services()["services"]["archive"], *services("parts")["services"].values())
    ]
    assert all(part == whole for part in parts)


@pytest.mark.parametrize("kind", ["", "parts"])
def test_a_proxy_before_containers_is_not_counted(kind: str) -> None:
    """It comes by the gateway of a bridge, and nobody else is left uncounted."""
    compose = services(kind)
    gateways = {}
    for name, network in compose["networks"].items():
        if not (network or {}).get("internal"):
            [line] = network["ipam"]["config"]
            assert ip_address(line["gateway"]) in ip_network(line["subnet"])
            gateways[name] = line["gateway"]
    assert len({*gateways.values()}) == len(gateways)
    open_ones = [each for each in compose["services"].values() if "ports" in each]
    assert open_ones
    for service in open_ones:
        said = service["environment"]["ARCHIVE_DOORS_PROXIES"]
        [default] = re.findall(r"^\$\{PROXIES-(.*)\}$", said)
        bears = load(ROOT / "config.toml", {"ARCHIVE_DOORS_PROXIES": default}).doors.bears
        own = [gateways[name] for name in service["networks"] if name in gateways]
        assert {bears.counted(gateway) for gateway in own} == {""}
        assert {*default.split(",")} == {f"{each}/32" for each in gateways.values()}


def test_systemd_finds_little_exposed(tmp_path: Path) -> None:
    systemd = shutil.which("systemd-analyze")
    service = DROP_IN.read_text().partition("[Service]")[2]
    both = UNIT.read_text().replace("[Install]", service + "\n[Install]")
    units = {"alone": UNIT.read_text(), "with-servers": both, "watcher": WATCHER.read_text()}
    for name, text in units.items() if systemd else ():
        unit = tmp_path / f"{name}.service"
        unit.write_text(text)
        words = ["security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", str(unit)]
        done = subprocess.run([str(systemd), *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_image_runs_as_nobody() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    assert "--require-hashes" in text
    # A checkout of umask 077 is copied as it is, for root alone.
    after = text.partition("USER 10001")[0].rpartition("COPY ")[2]
    assert "RUN chmod -R a+rX . " in after


def services(kind: str = "") -> dict[str, Any]:
    name = f"compose.{kind}.yaml" if kind else "compose.yaml"
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / name).read_text())
    return found


def test_the_containers_have_a_read_only_root_and_nothing_to_gain() -> None:
    compose = services()
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    archive = compose["services"]["archive"]
    assert "cap_add" not in archive
    assert archive["ulimits"]["core"] == 0
    assert archive["mem_limit"] == archive["memswap_limit"]


def test_the_database_is_reached_by_the_archive_alone() -> None:
    compose = services()
    assert compose["networks"]["database"]["internal"] is True
    assert compose["services"]["postgres"]["networks"] == ["database"]
    assert "ports" not in compose["services"]["postgres"]
    for published in compose["services"]["archive"]["ports"]:
        assert re.fullmatch(r"\$\{[A-Z]+_ADDRESS:-127\.0\.0\.1\}:(808[012]):\1", published)


PROXY = ROOT / "deploy/network/nginx.conf"
RULES = ROOT / "deploy/network/nftables.conf"


def test_the_proxy_keeps_nothing_and_repeats_nothing() -> None:
    text = PROXY.read_text()
    for said in (
        "proxy_request_buffering off;",
        "proxy_buffering off;",
        "proxy_cache off;",
        "proxy_max_temp_file_size 0;",
        "proxy_next_upstream off;",
        "client_max_body_size 0;",
        "ssl_verify_client on;",
    ):
        assert said in text
    [form] = re.findall(r"^log_format archive '(.*)';$", text, re.MULTILINE)
    assert not re.search(r"uri|request |args|http_|remote_user", form)
    for log in (
        "access_log /var/log/nginx/archive.log archive",
        "error_log /var/log/nginx/archive.error.log emerg",
    ):
        assert text.count(f"    {log};") == text.count("server {")


def test_each_door_has_its_own_segment_in_the_plan() -> None:
    listened = dict(
        re.findall(r"listen (10\.20\.\d)\.5:443.*?127\.0\.0\.1:(808\d)", PROXY.read_text(), re.S)
    )
    assert listened == {"10.20.1": "8081", "10.20.2": "8080", "10.20.3": "8082"}
    rules = RULES.read_text()
    segments = {"telephony": "10.20.1", "desks": "10.20.2", "operations": "10.20.3"}
    doors = {"telephony": "ingest", "desks": "retrieval", "operations": "operations"}
    for segment, net in segments.items():
        assert f"define {segment} = {net}.0/24" in rules
        assert f"define {doors[segment]}_door = {net}.5" in rules
        assert f"ip saddr ${segment} ip daddr ${doors[segment]}_door tcp dport" in rules
    for chain in ("input", "forward", "output"):
        assert re.search(rf"hook {chain} priority filter; policy drop;", rules)
    # Containers are forwarded to.
    assert "without containers" in rules.partition("define")[0]
    assert "without containers" in (ROOT / "deploy/network/README.md").read_text()


def test_nft_and_nginx_take_the_plan(tmp_path: Path) -> None:
    """Each where it is installed and may be asked: nft by root alone."""
    nft, nginx, openssl = map(shutil.which, ("nft", "nginx", "openssl"))
    probe = [str(nft), "list", "tables"]
    if nft and subprocess.run(probe, capture_output=True).returncode == 0:
        done = subprocess.run([nft, "-c", "-f", str(RULES)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    if nginx and openssl:
        words = ["-t", "-c", settled(tmp_path)[0]]
        done = subprocess.run([nginx, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def settled(folder: Path) -> tuple[str, int]:
    """Where a configuration of nginx lies that has the plan's, and the port in place of 443."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    key, cert = folder / "key.pem", folder / "cert.pem"
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    words += ["-keyout", str(key), "-out", str(cert), "-subj", "/CN=archive"]
    subprocess.run(["openssl", *words], check=True, capture_output=True)
    text = re.sub(r"/etc/nginx/archive/[\w-]+\.pem", str(cert), PROXY.read_text())
    text = re.sub(r"/etc/nginx/archive/[\w-]+\.key", str(key), text)
    text = text.replace("/var/log/nginx", str(folder))
    text = re.sub(r"listen 10\.(20\.\d\.5):443", rf"listen 127.\1:{port}", text)
    (folder / "archive.conf").write_text(re.sub(r"127\.0\.0\.1:808\d", "127.0.0.1:1", text))
    temporary = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    (folder / "nginx.conf").write_text(
        f"pid {folder}/pid;\nerror_log {folder}/all.log info;\nevents {{}}\nhttp {{\n"
        + "".join(f"{name}_temp_path {folder}/{name};\n" for name in temporary)
        + f"include {folder}/archive.conf;\n}}\n"
    )
    return str(folder / "nginx.conf"), port


def test_the_proxy_names_nobody_when_the_archive_is_away(tmp_path: Path) -> None:
    """Where nginx is installed; behind it nobody answers."""
    nginx = shutil.which("nginx")
    if not nginx or not shutil.which("openssl"):
        return
    file, port = settled(tmp_path)
    running = subprocess.Popen([nginx, "-c", file, "-g", "daemon off;"])
    try:
        asked = [status_of(port, f"/?number=0401234567{rest}") for rest in ("", "0" * 9000)]
    finally:
        running.terminate()
        running.wait(10)
    assert asked == [502, 414]
    logs = {each.name: each.read_text() for each in tmp_path.glob("*.log")}
    assert logs.keys() == {"all.log", "archive.log", "archive.error.log"}
    assert "0401234567" not in "".join(logs.values())
    assert " 502 " in logs["archive.log"]


def status_of(port: int, path: str) -> int:
    """What the server of the desks answers, once it listens."""
    anybody = ssl._create_unverified_context()
    for _ in range(200):
        asking = http.client.HTTPSConnection("127.20.2.5", port, context=anybody)
        with suppress(ConnectionRefusedError), closing(asking):
            asking.request("GET", path)
            return asking.getresponse().status
        time.sleep(0.05)
    raise AssertionError("nobody listens")
