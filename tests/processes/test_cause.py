"""The cause of a failure, in logs as the programs wrote them."""

import pytest

from synaptic.processes import cause_of, describe_failure

LLAMA_ENDS = """\
0.00.276.983 E llama_model_load_from_file_impl: failed to load model
0.00.277.045 E common_fit_params: encountered an error while trying to fit params: failed to load model
0.00.420.369 E cmn  common_init_: failed to load model '/tmp/g/cut.gguf'
0.00.420.373 E srv    load_model: failed to load model, '/tmp/g/cut.gguf'
0.00.420.872 E srv          init: exiting due to model loading error
"""
PYTHON_ENDS = """\
Traceback (most recent call last):
  File "<string>", line 1, in <module>
  File "/x/server_process.py", line 113, in serve
    return xllamacpp.Server(options)
           ^^^^^^^^^^^^^^^^^^^^^^^^^
  File "src/xllamacpp/xllamacpp.pyx", line 3270, in xllamacpp.xllamacpp.Server.__cinit__
RuntimeError: Failed to init server, please check the input params.
"""

ROWS = {
    "a truncated model": (
        "0.00.276.967 E llama_model_load: error loading model: tensor 'token_embd.weight' data is not within the file "
        "bounds, model is corrupted or incomplete\n" + LLAMA_ENDS + PYTHON_ENDS,
        "model is corrupted or incomplete",
    ),
    "a truncated header": (
        "0.00.021.403 E gguf_init_from_reader: failed to read key-value pairs\n"
        "0.00.021.566 E llama_model_load: error loading model: llama_model_loader: failed to load model from /x\n"
        + LLAMA_ENDS
        + PYTHON_ENDS,
        "failed to read key-value pairs",
    ),
    "an architecture from the future": (
        "0.00.300.398 E llama_model_load: error loading model: unknown model architecture: 'lxama'\n"
        + LLAMA_ENDS
        + PYTHON_ENDS
        + "0.00.528.922 E srv          init: exiting due to model loading error",
        "unknown model architecture: 'lxama'",
    ),
    "no room on a device": (
        "0.1 I load_tensors: offloading 33 layers\n"
        "0.2 E ggml_backend_cuda_buffer_type_alloc_buffer: allocating 5000.00 MiB on device 0: cudaMalloc failed: out "
        "of memory\n0.2 E alloc_tensor_range: failed to allocate CUDA0 buffer of size 5242880000\n" + LLAMA_ENDS,
        "cudaMalloc failed: out of memory",
    ),
    "no room for the cache": (
        "0.2 E llama_init_from_model: failed to initialize the context: failed to allocate buffer for kv cache\n"
        "0.2 E common_init_from_params: failed to create context with model '/m.gguf'\n" + LLAMA_ENDS,
        "failed to allocate buffer for kv cache",
    ),
    "an assertion": (
        ("/build/source/ggml/src/ggml-rpc/ggml-rpc.cpp:550: Remote RPC server crashed or returned malformed response\n"
        "[New LWP 12]\n0x00007f in wait4 () from /lib/libc.so.6\n[Inferior 1 (process 9) detached]"),
        "ggml-rpc.cpp:550: Remote RPC server crashed or returned malformed response",
    ),
    "a C++ exception": (
        "terminate called after throwing an instance of 'std::runtime_error'\n  what():  error from accept()\n",
        "what():  error from accept()",
    ),
    "a wrong argument": ("error: invalid argument: --ctx\n\nusage: see --help\n", "error: invalid argument: --ctx"),
    "a taken port": (
        ("0.1 I srv  init: using 7 threads\n0.1 E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1\n"
        "0.1 E srv llama_server: exiting due to HTTP server error\n"),
        "couldn't bind HTTP server socket",
    ),
    "a missing library": (
        ("./rpc-server: error while loading shared libraries: libcuda.so.1: cannot open shared object file: No such "
        "file or directory\n"),
        "libcuda.so.1: cannot open shared object file",
    ),
    "an older system": (
        "./llama-server: /lib/libc.so.6: version `GLIBC_2.38' not found (required by ./llama-server)\n",
        "version `GLIBC_2.38' not found",
    ),
    "another architecture": ("/x/llama-server: Exec format error\n", "Exec format error"),
    "a worker's port": ("Starting RPC server v3.0.0\n  endpoint : 0.0.0.0:50052\nFailed to create server socket\n",
                        "Failed to create server socket"),
    "a compiler's error": (
        ("[12/459] Building CXX object ggml/src/CMakeFiles/ggml.dir/ggml.cpp.o\n"
        "FAILED: ggml/src/CMakeFiles/ggml.dir/ggml.cpp.o\n/usr/bin/c++ -O3 -o ggml.cpp.o -c /x/ggml.cpp\n"
        "/x/ggml.cpp: In function 'int main()':\n/x/ggml.cpp:7:3: warning: unused variable 'error' [-Wunused]\n"
        "/x/ggml.cpp:9:5: error: 'foo' was not declared in this scope\n    9 |     foo();\n      |     ^~~\n"
        "ninja: build stopped: subcommand failed.\n"),
        "/x/ggml.cpp:9:5: error: 'foo' was not declared in this scope",
    ),
    "a compiler without memory": (
        ("c++: fatal error: Killed signal terminated program cc1plus\ncompilation terminated.\n"
        "ninja: build stopped: subcommand failed.\n"),
        "Killed signal terminated program cc1plus",
    ),
    "a linker": (
        ("/usr/bin/ld: ggml.o: undefined reference to `foo'\ncollect2: error: ld returned 1 exit status\n"
        "ninja: build stopped: subcommand failed.\n"),
        "undefined reference to `foo'",
    ),
    "a full disk while building": (
        ("FAILED: x.o\n{standard input}: Assembler messages:\n{standard input}: Fatal error: can't write 39 bytes to "
        "section .text of x.o: 'No space left on device'\nninja: build stopped: subcommand failed.\n"),
        "No space left on device",
    ),
    "CMake": (
        ("-- The C compiler identification is unknown\nCMake Error at CMakeLists.txt:2 (project):\n"
        "  No CMAKE_CXX_COMPILER could be found.\n\n\n-- Configuring incomplete, errors occurred!\n"),
        "CMake Error at CMakeLists.txt:2 (project): No CMAKE_CXX_COMPILER could be found.",
    ),
    "make": ("gcc: error: x.c: No such file\nmake[1]: *** [Makefile:3: x.o] Error 1\nmake: *** [all] Error 2\n",
             "gcc: error: x.c: No such file"),
    "pip without the package": (
        ("ERROR: Could not find a version that satisfies the requirement nosuch==9 (from versions: none)\n"
        "ERROR: No matching distribution found for nosuch==9\n"),
        "Could not find a version that satisfies the requirement nosuch==9",
    ),
    "pip on a full disk": (
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n\n"
        "[notice] A new release of pip is available\n"),
        "No space left on device",
    ),
    "uv": (("error: Failed to fetch: `http://127.0.0.1:9/simple/`\n  Caused by: tcp connect error\n"
           "  Caused by: Connection refused (os error 111)\n"), "Connection refused (os error 111)"),
    "ssh without the key": (
        ("Warning: Permanently added '10.0.0.4' (ED25519) to the list of known hosts.\n"
        "ada@10.0.0.4: Permission denied (publickey,password).\n"),
        "Permission denied (publickey,password).",
    ),
    "ssh to nowhere": ("ssh: Could not resolve hostname nowhere: Name or service not known\n", "Could not resolve"),
    "ssh to another machine than before": (
        ("@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@@@\n"
        "IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!\nHost key verification failed.\n"),
        "Host key verification failed.",
    ),
    "a Python program": (
        ('starting\nTraceback (most recent call last):\n  File "x.py", line 1, in <module>\n    import nosuch\n'
        "ModuleNotFoundError: No module named 'nosuch'\nsys:1: ResourceWarning: unclosed file\n"),
        "ModuleNotFoundError: No module named 'nosuch'",
    ),
    "an exception from an exception": (
        "Traceback (most recent call last):\n  File \"x.py\", line 1\nKeyError: 'a'\n\n"
        "The above exception was the direct cause of the following exception:\n\n" + PYTHON_ENDS,
        "RuntimeError: Failed to init server",
    ),
    "ninja without a build": ("ninja: error: loading 'build.ninja': No such file\n", "loading 'build.ninja'"),
    "something else": ("hello\n\n  the last words  \n-----\n", "the last words"),
    "only a warning": ("warning: the sky is grey\n", "warning: the sky is grey"),
    "nothing": ("\n  \n^^^^\n", ""),
}  # fmt: skip


@pytest.mark.parametrize(("log", "cause"), ROWS.values(), ids=ROWS)
def test_the_line_that_names_the_cause_is_found(log: str, cause: str):
    found = cause_of(log.splitlines())

    assert cause in found
    assert bool(found) == bool(cause)
    assert "Traceback" not in found and 'File "' not in found and "/build/source" not in found


def test_a_failure_is_described_by_its_end_and_its_cause():
    assert describe_failure(1, ["x", "", "y: Exec format error", "z"]) == "exited with status 1: y: Exec format error"
    assert describe_failure(1, []) == "exited with status 1"
    assert describe_failure(-9, ["all is well"]) == "was killed by SIGKILL"
    assert describe_failure(-6, ["GGML_ASSERT(x) failed"]) == "was killed by SIGABRT: GGML_ASSERT(x) failed"


def test_a_cause_is_cut_to_a_line_that_can_be_read():
    assert len(cause_of([f"error: {'x' * 5000}"])) == 300
