"""Which devices the command line names, and what it may not name."""

import pytest

from grid.devices.address import ADB, SSH, labels, read_devices
from model.errors import InputError


def test_an_ssh_address_has_user_host_port_and_cores():
    (device,) = read_devices(["ssh://pi@raspberrypi.local:2222?cores=4-7&python=/opt/py/bin/python3"])
    assert (device.kind, device.host, device.port, device.cores) == (SSH, "pi@raspberrypi.local", 2222, (4, 5, 6, 7))
    assert device.python == "/opt/py/bin/python3"
    assert device.label == "raspberrypi.local-cores4-7", "other cores are another device to the results"


def test_an_adb_address_is_a_serial_number():
    (device,) = read_devices(["phone=adb:R58M123?cores=0,2"])
    assert (device.kind, device.host, device.label) == (ADB, "R58M123", "phone-cores0.2")


def test_a_file_lists_devices_by_name(tmp_path):
    file = tmp_path / "devices.yaml"
    file.write_text("pi: {address: 'ssh://pi@host', cores: 0-3, cool_below_c: 55}\nphone: adb:R58M123\n")
    pi, phone = read_devices([str(file)])
    assert (pi.label, pi.cool_below_c, phone.label) == ("pi-cores0-3", 55.0, "phone")


def test_local_is_the_machine_itself_and_has_no_address():
    texts = ["local", "pi=ssh://host"]
    assert labels(texts, read_devices(texts)) == ("local", "pi")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pi@host", "is not the address of a device; expected ssh://"),
        ("ssh://pi:secret@host", "holds a password; expected a key"),
        ("ssh://-oProxyCommand=x@host", "is no address"),
        ("ssh://-oProxyCommand=x", "is no address"),
        ("ssh://host/folder", "is no address"),
        ("ssh://host:99999", "is no address"),
        ("ssh://host;reboot", "is no address"),
        ("adb:$(reboot)", "is no serial number"),
        ("adb:-s", "is no serial number"),
        ("ssh://host?cores=7-4", "are no cores; expected such as 4-7"),
        ("ssh://host?cores=all", "are no cores"),
        ("ssh://host?speed=9", "speed: is unknown; expected one of cores, python, benchmark, folder, cool_below_c"),
        ("ssh://host?python=-c", "python: '-c' is no path"),
        ("missing.yaml", "cannot be read"),
    ],
)
def test_what_is_no_device_is_refused_with_what_is_expected(text, message):
    with pytest.raises(InputError) as caught:
        read_devices([text])
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_two_devices_of_one_name_are_told_to_be_named():
    with pytest.raises(InputError, match="2 devices are called host"):
        read_devices(["ssh://a@host", "ssh://b@host"])


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(InputError) as caught:
        read_devices(["pi@host", "adb:"])
    assert len(caught.value.errors) == 2
