"""Random numbers of the training step from (seed, iteration, rank), so that resuming is exact."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmseg_adm.datasets.stream import StreamSampler, seed_everything
from mmseg_adm.registry import HOOKS


@HOOKS.register_module()
class DataStreamHook(Hook):
    """Seeds every iteration: dropout then draws the same after a resume as without one.

    The data come from :class:`~mmseg_adm.datasets.stream.StreamSampler`. Where a resumed run
    starts, the train loop skips to (onedl), or reads and discards up to it (upstream).
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Refuse a stream that is not the run's.

        Raises:
            ValueError: If the sampler's seed is not the run's, as after resuming a run of
                another seed.
        """
        sampler = runner.train_dataloader.sampler
        if isinstance(sampler, StreamSampler) and sampler.seed != runner.seed:
            raise ValueError(
                f'the data stream has seed {sampler.seed}, but the run, or the one that it '
                f'resumes, has {runner.seed}: set randomness.seed={runner.seed}'
            )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Seed after the batch was loaded: loading without workers draws from the same states."""
        seed_everything(runner.seed, runner.iter, get_rank())
