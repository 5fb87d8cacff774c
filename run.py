"""PaCoRe Lab's command: `python run.py strategy=pacore_high backend=openai ...`; `--help` lists everything."""

import asyncio

import hydra
from omegaconf import DictConfig

from pacore_lab import config, engine


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
@config.one_line_errors
def main(settings: DictConfig) -> None:
    asyncio.run(engine.run(config.build(settings)))


if __name__ == "__main__":
    config.command(main)
