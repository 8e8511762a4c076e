"""Which files an engine has, and its identity."""

import os
import shutil
from pathlib import Path

import pytest
from engine_support import llama_server, rpc_server, stand_in, write_program

from synaptic.backends.distributed.engine.engine import fingerprint, identify, locate
from synaptic.errors import UsageError


@pytest.mark.parametrize("inner", [".", "bin", "build/bin"])
def test_an_engine_is_found_where_builds_and_installations_have_it(tmp_path, inner):
    stand_in(tmp_path / inner)
    files = locate(tmp_path)
    assert files.directory == (tmp_path / inner).resolve()
    assert files.llama_server.name == "llama-server" and files.rpc_server.name == "ggml-rpc-server"
    assert files.cpu_variants == ("haswell", "zen4")


def test_the_older_name_of_the_rpc_server_is_known(tmp_path):
    stand_in(tmp_path)
    (tmp_path / "ggml-rpc-server").rename(tmp_path / "rpc-server")
    assert locate(tmp_path).rpc_server.name == "rpc-server"


def test_libraries_of_an_installation_are_found_and_each_file_counts_once(tmp_path):
    write_program(tmp_path / "bin/llama-server", llama_server())
    write_program(tmp_path / "bin/rpc-server", rpc_server())
    library = tmp_path / "lib"
    library.mkdir()
    (library / "libggml.so.0.1").write_bytes(b"ggml")
    (library / "libggml.so.0").symlink_to("libggml.so.0.1")
    (library / "libggml.so").symlink_to("libggml.so.0")
    (library / "libssl.so").write_bytes(b"not ours")
    assert [file.name for file in locate(tmp_path).libraries] == ["libggml.so"]


def test_the_directory_may_be_named_from_home(own_home):
    stand_in(own_home / "llama")
    assert locate(Path("~/llama")).directory == (own_home / "llama").resolve()


@pytest.mark.parametrize(
    ("spoil", "message", "hint"),
    [
        (shutil.rmtree, "does not exist", "name the directory"),
        (lambda root: (root / "llama-server").unlink(), "there is no llama-server in", "built or installed"),
        (lambda root: (root / "ggml-rpc-server").unlink(), "no ggml-rpc-server or rpc-server", "-DGGML_RPC=ON"),
        (lambda root: (root / "llama-server").chmod(0o644), "may not be executed", "chmod"),
    ],
)
def test_what_is_no_engine_is_refused_with_what_to_do(tmp_path, spoil, message, hint):
    root = stand_in(tmp_path / "engine")
    spoil(root)
    with pytest.raises(UsageError, match=message) as caught:
        locate(root)
    assert hint in (caught.value.hint or "")


def test_a_file_is_no_engine(tmp_path):
    file = stand_in(tmp_path) / "llama-server"
    with pytest.raises(UsageError, match="is a file, not a directory"):
        locate(file)


def test_the_identity_is_that_of_the_content_wherever_it_is(tmp_path):
    one = locate(stand_in(tmp_path / "one"))
    shutil.copytree(tmp_path / "one", tmp_path / "two" / "bin")
    two = locate(tmp_path / "two")
    assert identify(one, "7.0.0") == identify(two, "7.0.0")


@pytest.mark.parametrize("name", ["llama-server", "ggml-rpc-server", "libggml.so", "libggml-cpu-zen4.so"])
def test_every_file_is_part_of_the_identity(tmp_path, name):
    stand_in(tmp_path)
    before = identify(locate(tmp_path), "7.0.0")
    with (tmp_path / name).open("ab") as file:
        file.write(b"#")
    assert identify(locate(tmp_path), "7.0.0") != before


def test_a_missing_library_and_another_protocol_are_another_identity(tmp_path):
    files = locate(stand_in(tmp_path))
    before = identify(files, "7.0.0")
    assert identify(files, "7.0.1") != before
    (tmp_path / "libggml-cpu-zen4.so").unlink()
    assert identify(locate(tmp_path), "7.0.0") != before


def test_the_fingerprint_follows_size_and_time(tmp_path):
    files = locate(stand_in(tmp_path))
    before = fingerprint(files)
    assert fingerprint(locate(tmp_path)) == before
    library = tmp_path / "libggml.so"
    os.utime(library, ns=(1, library.stat().st_mtime_ns + 1))
    assert fingerprint(files) != before


def test_a_file_that_is_gone_is_an_error_of_the_system(tmp_path):
    files = locate(stand_in(tmp_path))
    (tmp_path / "libggml.so").unlink()
    with pytest.raises(FileNotFoundError):
        fingerprint(files)
