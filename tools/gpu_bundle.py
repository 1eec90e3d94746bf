"""The bundle of tools/gpu_check: programs that need glibc and a driver only, in one archive.

A bundle folder holds bundle.tar.xz and manifest.json: {"git", "date", "nvcc", "tree_bytes",
"archive_sha256", "tests", "probes", "programs", "files": {name: {"bytes", "sha256"}}}.
"""
import datetime
import hashlib
import json
import pathlib
import re
import shutil
import subprocess
import tarfile

MIB = 1 << 20
BUNDLE_LIMIT = 16 * MIB          # the archive
TOTAL_LIMIT = 60 * MIB           # the archive and the whole tree, which travels with it
# What a program may still load: glibc's own parts. CUDA's driver is looked for at run time.
SYSTEM = re.compile(r"^(linux-vdso|libc|libm|libdl|librt|libpthread|ld-linux-x86-64)\.so")
PROBES = ("wgmma", "tma", "launch", "bandwidth")
# Test programs that run the CUDA rows of another op: its integer rows, and what is composed of it.
MORE_TESTS = ("ops_matmul_int_test", "ops_grouped_matmul_test", "ops_moe_experts_test")
# Beside the ops with a CUDA row: suites that run whole models or the device room.
SUITES = re.compile(r"^(device_.*|bench_gpu_.*|tests_device)_test$")


class Refused(Exception):
    """A sentence for the user."""


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for piece in iter(lambda: file.read(MIB), b""):
            digest.update(piece)
    return digest.hexdigest()


def cuda_ops(root):
    """Ops whose kernels.inc has a row for a CUDA device, and those rows: {op: [name]}."""
    found = {}
    for table in sorted((root / "src/ops").glob("*/kernels.inc")):
        rows = re.findall(r"^SLUICE_KERNEL\(kCuda, (\w+),", table.read_text(), re.M)
        if rows:
            found[table.parent.name] = rows
    return found


def git_id(root):
    said = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"],
                          capture_output=True, text=True)
    return said.stdout.strip() or "unknown"


def tree_bytes(root):
    """Bytes of the files that git tracks or would add."""
    said = subprocess.run(["git", "-C", str(root), "ls-files", "-z", "--cached", "--others",
                           "--exclude-standard"], capture_output=True, text=True)
    files = [root / name for name in said.stdout.split("\0") if name]
    return sum(f.stat().st_size for f in files if f.is_file() and not f.is_symlink())


def foreign_libraries(program):
    """Shared libraries that the program needs beyond glibc."""
    said = subprocess.run(["ldd", str(program)], capture_output=True, text=True)
    if "not a dynamic executable" in said.stdout + said.stderr:
        return []
    names = [line.split()[0].rsplit("/", 1)[-1] for line in said.stdout.splitlines() if line.strip()]
    return [name for name in names if not SYSTEM.match(name)]


def pack(out, files, facts, tree=0, bundle_limit=BUNDLE_LIMIT, total_limit=TOTAL_LIMIT):
    """Writes out/bundle.tar.xz of {name: path} and out/manifest.json; refuses what is too large."""
    out.mkdir(parents=True, exist_ok=True)
    archive, manifest = out / "bundle.tar.xz", out / "manifest.json"
    for old in (archive, manifest):
        old.unlink(missing_ok=True)
    with tarfile.open(archive, "w:xz", preset=6) as tar:
        for name, path in sorted(files.items()):
            tar.add(path, arcname=name, recursive=False)
    size = archive.stat().st_size
    if size > bundle_limit or size + tree > total_limit:
        archive.unlink()
        raise Refused(f"bundle: {size / MIB:.1f} MiB, with the tree {(size + tree) / MIB:.1f} MiB; the "
                      f"limits are {bundle_limit / MIB:.0f} and {total_limit / MIB:.0f}")
    described = {name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
                 for name, path in sorted(files.items())}
    manifest.write_text(json.dumps({**facts, "tree_bytes": tree, "archive_bytes": size,
                                    "archive_sha256": sha256(archive), "files": described},
                                   indent=1) + "\n")
    return size


def unpack(bundle, to):
    """The manifest of a bundle whose files now lie under `to`, each with its checksum."""
    try:
        manifest = json.loads((bundle / "manifest.json").read_text())
        if sha256(bundle / "bundle.tar.xz") != manifest["archive_sha256"]:
            raise Refused(f"{bundle}/bundle.tar.xz: not the archive that its manifest names")
    except (OSError, ValueError, KeyError) as error:
        raise Refused(f"{bundle}: no bundle ({error}); tools/gpu_check prepare makes one")
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    with tarfile.open(bundle / "bundle.tar.xz") as tar:
        for member in tar.getmembers():
            if member.name in manifest["files"] and member.isfile():
                tar.extract(member, to)
    for name, known in manifest["files"].items():
        if not (to / name).is_file() or sha256(to / name) != known["sha256"]:
            raise Refused(f"{bundle}: {name} is not what the manifest describes")
    return manifest


def build(root, out, jobs, ask=subprocess.run):
    """Builds and packs everything; the size of the archive in bytes and the manifest's facts."""
    def run(*command):
        done = ask(command, cwd=root, capture_output=True, text=True)
        if done.returncode != 0:
            raise Refused(" ".join(command) + " failed:\n" + (done.stdout + done.stderr)[-4000:])
        return done.stdout

    run("cmake", "--preset", "gpu")
    folder = root / "build/gpu"
    cache = (folder / "CMakeCache.txt").read_text()
    nvcc = re.search(r"^(?:CMAKE_CUDA_COMPILER|SLUICE_NVCC):\w+=(/.+)$", cache, re.M)
    if not nvcc:
        raise Refused("prepare needs nvcc: this configuration has no CUDA")
    targets = run("ninja", "-C", str(folder), "-t", "targets", "all")
    known = set(re.findall(r"^(?:[\w/]+/)?(\w+): ", targets, re.M))
    tests = [*(f"ops_{op}_test" for op in cuda_ops(root)), *MORE_TESTS]
    missing = [t for t in tests if t not in known]
    if missing:
        raise Refused("an op with a CUDA row has no test program: " + ", ".join(missing))
    suites = sorted(t for t in known if SUITES.match(t))
    programs = ["sluice", "bench_ops"]
    probes = [f"probe_{p}" for p in PROBES]
    run("cmake", "--build", str(folder), "-j", str(jobs), "--target", *programs, *tests, *suites,
        *probes)
    staging = out / "stripped"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    files = {}
    for name in [*programs, *tests, *suites, *probes]:
        program = folder / name if (folder / name).is_file() else folder / "bench/gpu" / name
        run("strip", "-o", str(staging / name), str(program))
        foreign = foreign_libraries(staging / name)
        if foreign:
            raise Refused(f"{name}: still needs {', '.join(foreign)}")
        files[name] = staging / name
    facts = {"git": git_id(root), "date": datetime.datetime.now(datetime.timezone.utc).isoformat(
        timespec="seconds"), "nvcc": run(nvcc.group(1), "--version").strip().splitlines()[-1],
        "tests": tests, "suites": suites, "probes": probes, "programs": programs}
    size = pack(out, files, facts, tree_bytes(root))
    shutil.rmtree(staging)
    return size, facts
