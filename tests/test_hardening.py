"""How the service is shut in where it is deployed: the unit of systemd, the container, the network.

No systemd and no container runtime is needed here. Where systemd-analyze, nft or nginx are
installed they judge as well.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
UNIT = ROOT / "deploy/systemd/call-archive.service"
DROP_IN = ROOT / "deploy/systemd/servers.conf"

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


def test_the_unit_shuts_the_service_in() -> None:
    found = directives(UNIT)
    assert {name: found.get(name, [None])[-1] for name in SHUT} == SHUT
    assert found["User"] == ["call-archive"]
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


def test_secrets_reach_the_service_as_credentials_alone() -> None:
    text = UNIT.read_text() + DROP_IN.read_text()
    loaded = {value.split(":")[0] for value in directives(DROP_IN)["LoadCredential"]}
    given = set(re.findall(r"^Environment=ARCHIVE_\w+_FILE=%d/(\w+)$", text, re.MULTILINE))
    assert loaded == given == {"database_url", "access_key", "secret_key"}
    assert not re.search(r"(SECRET_KEY|ACCESS_KEY|DATABASE_URL)=", text)


def test_systemd_finds_little_exposed(tmp_path: Path) -> None:
    systemd = shutil.which("systemd-analyze")
    service = DROP_IN.read_text().partition("[Service]")[2]
    both = UNIT.read_text().replace("[Install]", service + "\n[Install]")
    for name, text in (("alone", UNIT.read_text()), ("with-servers", both)) if systemd else ():
        unit = tmp_path / f"{name}.service"
        unit.write_text(text)
        words = ["security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE}", str(unit)]
        done = subprocess.run([str(systemd), *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_the_image_runs_as_nobody() -> None:
    text = (ROOT / "deploy/Dockerfile").read_text()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001:10001"]
    assert "--require-hashes" in text


def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
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
