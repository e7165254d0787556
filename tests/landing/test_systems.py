"""Each system that writes into a bucket, as it names, describes and writes its recordings."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.landing.conftest import Open
from tests.sounds import tone
from tests.stores.servers import Server

AUDIO = tone(2, channels=2)
CONVERSATION = "5773eca4-0874-4617-a6e8-85591aa94609"
RECORDING = "b1946ac9-2f4d-4c0e-9a1c-1d7c2a4c9e11"
FOLDER = f"0f5f7c1e/year=2026/month=11/day=24/hour=7/conversation_id={CONVERSATION}"


def started() -> datetime:
    return (datetime.now(UTC) - timedelta(hours=1)).replace(microsecond=0)


def genesys(moment: datetime) -> bytes:
    """What Genesys Cloud writes beside a recording, as far as it is used."""
    written = moment.strftime("%Y-%m-%dT%H:%M:%S.000+0000")
    return json.dumps({
        "mediaType": "Call", "provider": "Edge", "conversationId": CONVERSATION,
        "recordingId": RECORDING, "userIds": ["8a2f4a9e-agent"], "startTime": written,
        "endTime": written, "durationMs": 2000, "initialDirection": "INBOUND",
        "ani": "tel:+358401234567", "dnis": "tel:+358201234567",
    }).encode()  # fmt: skip


async def test_genesys_writes_a_file_beside_each_recording(
    open_site: Open, object_server: Server
) -> None:
    site = await open_site(object_server, "genesys", prefix="0f5f7c1e/")
    moment = started()
    await site.put(f"{FOLDER}/{RECORDING}.opus", AUDIO)
    assert (await site.look()).taken == 0
    assert await site.calls() == {}
    await site.put(f"{FOLDER}/{RECORDING}.opus_metadata.json", genesys(moment))
    await site.let_come_due()
    assert (await site.look()).taken == 1
    assert await site.there() == []
    [(call_id, call)] = (await site.calls()).items()
    assert call_id == RECORDING
    assert call["audio"] == AUDIO
    assert datetime.fromisoformat(str(call["started_at"])) == moment
    assert call["call_type"] == "customer_service"
    assert (call["source"], call["direction"]) == ("pbx", "inbound")
    assert (call["caller"], call["callee"]) == ("+358401234567", "+358201234567")
    assert call["agent"] == "8a2f4a9e-agent"


async def test_jambonz_tells_the_call_as_metadata_of_the_object(
    open_site: Open, rgw_server: Server
) -> None:
    site = await open_site(rgw_server, "jambonz")
    sid = "2e4b7c1a-6b2a-4c1d-8f3e-0a1b2c3d4e5f"
    await site.put(
        f"2026/11/24/{sid}.wav", AUDIO, callSid=sid, accountSid="a-1", direction="outbound",
        to="+358401234567", callId="x@sip", sampleRate="8000", call_type="telemarketing",
        **{"from": "0201234567"},
    )  # fmt: skip
    assert (await site.look()).taken == 1
    [(call_id, call)] = (await site.calls()).items()
    assert call_id == sid
    assert call["call_type"] == "direct_marketing"
    assert call["direction"] == "outbound"
    assert (call["caller"], call["callee"]) == ("+358201234567", "+358401234567")
    # It was written when it ended: its start is its length before that.
    since = datetime.now(UTC) - datetime.fromisoformat(str(call["started_at"]))
    assert timedelta(seconds=2) <= since


async def test_rtpengine_names_the_call_in_the_key(
    open_site: Open, rclone_server: Server, tmp_path: Path
) -> None:
    site = await open_site(rclone_server, "rtpengine_s3", "fault_report")
    for name, pitch in (("mix", 440), ("leg-7", 600)):
        file = tmp_path / "recording.wav"
        file.write_bytes(tone(2, pitch=pitch))
        await site.rclone(file, f"calls/abc-1%40host-a1b2c3d4e5f60718-{name}.wav")
    assert (await site.look()).taken == 2
    assert await site.there() == []
    calls = await site.calls()
    assert {*calls} == {"abc-1@host", "abc-1@host-a1b2c3d4e5f60718-leg-7"}
    assert {call["call_type"] for call in calls.values()} == {"fault_report"}


async def test_freeswitch_says_type_and_start_in_the_key(
    open_site: Open, rclone_server: Server
) -> None:
    site = await open_site(rclone_server, "freeswitch_s3", "")
    moment, uuid = started(), "7a1e6a3c-5b1f-4d3a-9d0e-0f6f2a7d4c11"
    url = site.minio.presigned_put_object(
        bucket_name=site.bucket, object_name=f"contract/{int(moment.timestamp())}/{uuid}.wav"
    )
    # As mod_http_cache does it: the type of mime.types, and a length.
    headers = {"Content-Type": "audio/x-wav", "User-Agent": "freeswitch-http-cache/1.0"}
    async with site.service.session.put(url, data=AUDIO, headers=headers) as answer:
        assert answer.status == 200
    assert (await site.look()).taken == 1
    [(call_id, call)] = (await site.calls()).items()
    assert (call_id, call["call_type"]) == (uuid, "contract")
    assert datetime.fromisoformat(str(call["started_at"])) == moment


@pytest.mark.parametrize("ending", [".wav", ""])
async def test_twilio_says_no_more_than_the_recordings_id(
    open_site: Open, rclone_server: Server, ending: str
) -> None:
    site = await open_site(rclone_server, "twilio_s3", "other")
    sid = "RE557ce644e5ab84fa21cc21112e22c485"
    await site.put(f"AC2c2a/{sid}{ending}", AUDIO)
    assert (await site.look()).taken == 1
    [(call_id, call)] = (await site.calls()).items()
    assert (call_id, call["call_type"], call["audio"]) == (sid, "other", AUDIO)


OWN = """
[mapping.acme]
sidecar = "{stem}.%s"
call_id = ["{sidecar.id}"]
call_type = ["{sidecar.line}"]
started_at = ["{sidecar.begin}"]
caller = ["{sidecar.from.@number}", "{sidecar.from}"]
words = ["sales=direct_marketing"]
"""


@pytest.mark.parametrize(
    ("ending", "text"),
    [
        ("xml", "<c><id>7</id><line>Sales</line><begin>{}</begin><from number='0401234567'/></c>"),
        ("csv", "id;line;begin;from\r\n7;Sales;{};0401234567\r\n"),
    ],
)
async def test_any_system_by_a_mapping_of_the_sites_own(
    open_site: Open, rclone_server: Server, ending: str, text: str
) -> None:
    site = await open_site(rclone_server, "acme", "", more=OWN % ending)
    moment = started()
    await site.put("in/7.wav", AUDIO)
    await site.put(f"in/7.{ending}", text.format(int(moment.timestamp())).encode())
    assert (await site.look()).taken == 1
    assert await site.there() == []
    [(call_id, call)] = (await site.calls()).items()
    assert (call_id, call["call_type"]) == ("7", "direct_marketing")
    assert call["caller"] == "+358401234567"
