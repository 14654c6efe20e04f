"""Wall time of `import jwb_dh_v1` (promised: under 0.5 s) and `jwb-dh --help` (under 1 s); median of ten processes."""

import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python -c 'import jwb_dh_v1'": [sys.executable, "-c", "import jwb_dh_v1"],
    "python -c pass": [sys.executable, "-c", "pass"],
    "jwb-dh --help": [sys.executable, "-m", "jwb_dh_v1.cli", "--help"],
}


def main() -> None:
    """Print median and range for each command."""
    for name, command in COMMANDS.items():
        seconds = []
        for _ in range(10):
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds.append(time.perf_counter() - begun)
        print(f"{name}: median {statistics.median(seconds):.3f} s ({min(seconds):.3f}-{max(seconds):.3f})")


if __name__ == "__main__":
    main()
