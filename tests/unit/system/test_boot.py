from syncd.system import boot


def test_the_id_stays():
    assert boot.boot_id() == boot.boot_id() != ""


def test_a_system_without(monkeypatch, tmp_path):
    monkeypatch.setattr(boot, "BOOT_ID", tmp_path / "absent")
    assert boot.boot_id() == ""
