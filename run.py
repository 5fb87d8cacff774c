"""PaCoRe Lab's command: `python run.py strategy=pacore_high backend=openai ...`; `--help` lists everything."""

import asyncio

import hydra
from omegaconf import DictConfig

from pacore_lab.config.build import build
from pacore_lab.config.command import launch, one_line_errors
from pacore_lab.running.run import execute


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
@one_line_errors
def main(settings: DictConfig) -> None:
    asyncio.run(execute(build(settings)))


if __name__ == "__main__":
    launch(main)
