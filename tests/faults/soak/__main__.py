"""``python -m tests.faults.soak`` runs ``program.py``."""

from tests.faults.soak.program import main

if __name__ == "__main__":
    main()
