"""`python -m zdm_ml` is `zdm`, for what starts modules: `torchrun -m zdm_ml train --model luna`."""

from zdm_ml.cli import main

if __name__ == "__main__":
    main()
