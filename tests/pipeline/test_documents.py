"""Documents from files: paths, patterns, and everything that a file can be instead of text."""

import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from pypdf import PdfWriter

from synaptic.pipeline import documents
from synaptic.pipeline.documents import MAX_IN_FOLDER, Repeated, read_file, read_files, refuse_blank
from synaptic.pipeline.file_texts import MAX_PAGES


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("notes/a.txt", "notes/b.md", "notes/deep/c.txt", "notes/.hidden.txt", "one,two.txt", "odd[1].txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("value", "paths"),
    [
        ("notes/a.txt", ["notes/a.txt"]),
        ("notes/*", ["notes/a.txt", "notes/b.md"]),
        ("notes/*.txt", ["notes/a.txt"]),
        ("notes/**/*.txt", ["notes/a.txt", "notes/deep/c.txt"]),
        ("notes/[b]*", ["notes/b.md"]),
        ("notes/b.md, notes/a.txt", ["notes/b.md", "notes/a.txt"]),
        ("notes/*.md,notes/*", ["notes/b.md", "notes/a.txt"]),
        (Repeated(("notes/b.md", "notes/a.txt")), ["notes/b.md", "notes/a.txt"]),
        (["notes/b.md", Path("notes/a.txt")], ["notes/b.md", "notes/a.txt"]),
        (Path("notes/b.md"), ["notes/b.md"]),
        ("one,two.txt", ["one,two.txt"]),
        ("odd[1].txt", ["odd[1].txt"]),
        ("odd[1].txt,notes/a.txt", ["odd[1].txt", "notes/a.txt"]),
    ],
)
def test_a_value_names_files(value: object, paths: list[str]):
    found = read_files(value)

    assert [document["path"] for document in found] == paths
    assert [document["name"] for document in found] == [Path(path).name for path in paths]
    assert [document["text"] for document in found] == [f"text of {path}" for path in paths]


def test_documents_may_be_given_as_they_are():
    assert read_files([{"text": "t"}, "notes/a.txt"])[0] == {"name": "", "path": "", "text": "t"}
    assert read_file({"name": "n", "text": "t"}) == {"name": "n", "path": "", "text": "t"}


def test_home_is_where_a_tilde_leads(own_home: Path):
    (own_home / "mine.txt").write_text("mine")

    assert [read_file("~/mine.txt")["text"], read_files("~/*.txt")[0]["text"]] == ["mine", "mine"]


def test_the_path_of_one_file_is_literal():
    assert read_file("one,two.txt")["text"] == "text of one,two.txt"
    with pytest.raises(ValueError, match=r"names notes/\*, which is not there"):
        read_file("notes/*")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("notes/a.tx", "names notes/a.tx, which is not there; did you mean 'a.txt'?"),
        ("notes/zzzzzz", "names notes/zzzzzz, which is not there; there is no such file in notes"),
        ("nowhere/a.txt", "names nowhere/a.txt, which is not there; there is no folder nowhere"),
        ("*.pdf", "names *.pdf, which matches no file"),
        ("not*", "names not*, which matches no file"),
        (3, "must be paths of files, not 3"),
    ],
)
def test_what_names_no_file_says_so(value: object, message: str):
    with pytest.raises(ValueError) as caught:
        read_files(value)

    assert caught.value.args == (message,)


@pytest.mark.parametrize("value", [3, ["notes/a.txt"], None])
def test_one_file_is_one_path(value: object):
    with pytest.raises(ValueError, match="must be the path of a file"):
        read_file(value)


def test_every_file_is_looked_at_before_anything_is_said():
    with pytest.raises(ValueError) as caught:
        read_files("x.txt,notes/a.txt,notes/b.tx,*.pdf")

    assert len(caught.value.args) == 3


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"first\nsecond \xff\n", "names new.txt, which is not UTF-8 text (line 2)"),
        (b"caf\xe9\n", "is not UTF-8 text (line 1); save it as UTF-8; if it is from Windows, iconv -f WINDOWS-1252"),
        (b"\x89\x01\x02", "is not UTF-8 text (line 1); save it as UTF-8"),
        (
            "text".encode("utf-16-le"),
            "is not UTF-8 text but UTF-16 without a byte order mark; save it as UTF-8, or iconv",
        ),
        ("kürzer\nž".encode("utf-16-be"), "iconv -f UTF-16BE -t UTF-8 FILE"),
        (b"\xff\xfe\x00\xd8a\x00", "begins with the mark of UTF-16 but is no UTF-16 text"),
        (b"a\nb\0c", "names new.txt, which is no text: it holds NUL characters (line 2)"),
        (b"PK\x03\x04\x14\x00\xff", "a ZIP archive, as documents of office programs are; save it as text, or as PDF"),
        (b"\x1f\x8b\x08\xff", "compressed with gzip; gunzip it"),
        (
            b"ID3\x03\0\0\0\0\x0f\xff",
            "names new.txt, which is not text but sound (MP3); sound and films cannot be read; ",
        ),
        (b"\xff\xfb\x90\0\0", "not text but sound (MP3)"),
        (b"RIFF\x24\x08\0\0WAVEfmt ", "not text but sound (WAV)"),  # UTF-8 as well, with NUL characters
        (b"OggS\0\x02\0", "not text but sound (Ogg)"),
        (b"\0\0\0\x20ftypM4A \0", "not text but sound (M4A)"),
        (b"\0\0\0\x20ftypisom\0\0", "not text but a film (MP4 or QuickTime)"),
        (b"\x1a\x45\xdf\xa3\x01\0", "not text but a film (Matroska or WebM)"),
        (b"MZ\x90\0\x03", "not UTF-8 text but a program; give text"),
        (b"GGUF\x03\0\0\0", "a model (GGUF); give it as the model: -m FILE"),
        (b"OTTO M\xfcller\n", "is not UTF-8 text (line 1); save it as UTF-8; if it is from Windows"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, message: str, folder: Path):
    (folder / "new.txt").write_bytes(data)

    with pytest.raises(ValueError) as caught:
        read_file("new.txt")

    assert message in caught.value.args[0]


def test_marks_and_line_ends_of_other_systems_are_no_text(folder: Path):
    (folder / "new.txt").write_bytes(b"\xef\xbb\xbfa\r\nb")

    assert read_file("new.txt")["text"] == "a\nb"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_what_windows_writes_is_read(encoding: str, folder: Path):
    (folder / "new").mkdir()
    (folder / "new" / "a.txt").write_bytes("Größe – 漢字\r\n".encode(encoding))

    assert read_file("new/a.txt")["text"] == "Größe – 漢字\n"
    assert len(read_files("new")) == 1


def test_files_without_a_word_are_refused_where_they_are_all_or_named(folder: Path):
    (folder / "new.txt").write_text("\n \n")
    found = read_files("new.txt,notes/a.txt")

    refuse_blank(found)
    refuse_blank(read_files([]))
    refuse_blank([{"name": "", "path": "", "text": ""}])  # no file
    for refused, named in ((found[:1], ()), (found, ("new.txt", "notes/a.txt"))):
        with pytest.raises(ValueError, match=r"^names new\.txt, which is empty; name a file with text in it$"):
            refuse_blank(refused, named)


def test_an_empty_file_is_an_empty_document(folder: Path):
    (folder / "new.txt").touch()

    assert read_file("new.txt")["text"] == ""


def test_a_pipe_is_not_waited_for(folder: Path):
    os.mkfifo(folder / "pipe")

    with pytest.raises(ValueError, match="it is a pipe, not a regular file"):
        read_file("pipe")


def test_what_may_not_be_read_says_why(folder: Path):
    (folder / "loop").symlink_to("loop")

    with pytest.raises(ValueError, match="names loop, which cannot be read: Too many levels of symbolic links"):
        read_file("loop")


def test_a_file_is_bounded(folder: Path):
    with (folder / "large.txt").open("wb") as file:
        file.truncate(documents.MAX_FILE_BYTES + 1)

    with pytest.raises(ValueError, match=r"names large\.txt, which is longer than 8 MiB"):
        read_file("large.txt")


def test_all_files_together_are_bounded(folder: Path):
    count = documents.MAX_ALL_BYTES // documents.MAX_FILE_BYTES + 1
    for number in range(count):
        (folder / f"large{number}.txt").write_bytes(b"x" * documents.MAX_FILE_BYTES)

    with pytest.raises(ValueError, match=f"with large{count - 1}.txt, the files hold more than 64 MiB"):
        read_files("large*.txt")


def test_the_number_of_files_is_bounded(folder: Path):
    (folder / "many").mkdir()
    for number in range(documents.MAX_FILES + 1):
        (folder / "many" / str(number)).touch()

    with pytest.raises(ValueError, match="names 1001 files; at most 1000 are read"):
        read_files("many/*")


# -- folders, pictures, PDF ------------------------------------------------------------------------------------


def pdf_of(*pages: str) -> bytes:
    """Return a PDF with one line of text on each page."""
    kids = " ".join(f"{4 + 2 * index} 0 R" for index in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for index, text in enumerate(pages):
        content = f"BT /F 12 Tf 50 700 Td ({text}) Tj ET"
        resources = "/Resources<</Font<</F 3 0 R>>>>/MediaBox[0 0 595 842]"
        objects.append(f"<</Type/Page/Parent 2 0 R{resources}/Contents {5 + 2 * index} 0 R>>")
        objects.append(f"<</Length {len(content)}>>stream\n{content}\nendstream")
    data, offsets = b"%PDF-1.4\n", []
    for number, body in enumerate(objects, 1):
        offsets.append(len(data))
        data += f"{number} 0 obj{body}endobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    head = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}"
    end = f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{len(data)}\n%%EOF"
    return data + f"{head}{end}".encode()


def locked_pdf() -> bytes:
    writer = PdfWriter(clone_from=BytesIO(pdf_of("secret")))
    writer.encrypt("password", algorithm="RC4-128")
    written = BytesIO()
    writer.write(written)
    return written.getvalue()


def test_a_folder_is_the_text_files_in_it_but_no_caches(folder: Path):
    for name in ("in/b.md", "in/deep/a.py", "in/.git/config", "in/node_modules/x.js", "in/.hidden", "in/photo.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"\x89PNG\r\n\x1a\n" if name.endswith("png") else b"text")
    (folder / "in/paper.pdf").write_bytes(pdf_of("On paper"))

    assert [entry["path"] for entry in read_files("in/")] == ["in/b.md", "in/paper.pdf", "in/deep/a.py"]
    assert [entry["path"] for entry in read_files(["in", "in/b.md"])] == ["in/b.md", "in/paper.pdf", "in/deep/a.py"]


def test_a_folder_has_a_bound_and_needs_text(folder: Path):
    for number in range(MAX_IN_FOLDER + 1):
        (folder / "many").mkdir(exist_ok=True)
        (folder / "many" / f"{number}.txt").write_text("x")
    (folder / "none").mkdir()

    with pytest.raises(ValueError) as caught:
        read_files(["many/", "none"])

    assert caught.value.args == (
        "names the folder many/, in which there are more than 200 files; write a pattern, such as many/*.md",
        "names the folder none, in which there is no text",
    )


def test_a_pipeline_names_no_whole_folder(folder: Path):
    with pytest.raises(ValueError, match="names the folder notes; write notes/"):
        read_files("notes", folder=folder)


def test_the_text_of_a_pdf_is_read_page_by_page(folder: Path):
    (folder / "paper.pdf").write_bytes(pdf_of("The first page.", "The second page."))

    assert read_file("paper.pdf")["text"] == "The first page.\n\nThe second page."


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0", "names new.bin, which is a picture (PNG), and the agents are given text alone"),
        (b"\xff\xd8\xff\xe0", "is a picture (JPEG)"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "is a picture (WebP)"),
        (b"\0\0\0\x18ftypheic", "is a picture (HEIF)"),
        (b"%PDF-1.4\nnothing", "is no PDF that can be read"),
        (pdf_of("")[:200], "is no PDF that can be read"),
        (pdf_of(""), "is a PDF without text; pages that were scanned are pictures"),
        (locked_pdf(), "is a PDF with a password"),
        (pdf_of(*["x"] * (MAX_PAGES + 1)), f"has {MAX_PAGES + 1} pages; at most {MAX_PAGES} are read"),
    ],
    ids=["png", "jpeg", "webp", "heic", "broken", "cut", "scanned", "locked", "long"],
)
def test_what_has_no_text_is_refused_with_the_reason(data: bytes, message: str, folder: Path):
    (folder / "new.bin").write_bytes(data)

    with pytest.raises(ValueError) as caught:
        read_file("new.bin")

    assert message in caught.value.args[0]


def test_a_text_that_begins_like_a_picture_is_text(folder: Path):
    (folder / "new.txt").write_text("BMW builds engines.")

    assert read_file("new.txt")["text"] == "BMW builds engines."


def test_what_the_reader_of_pdf_logs_is_not_shown():
    Path("broken.pdf").write_bytes(b"%PDF-1.4\nnothing")
    code = (
        "from synaptic.pipeline.documents import read_files\ntry: read_files(['broken.pdf'])\nexcept ValueError: pass"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
