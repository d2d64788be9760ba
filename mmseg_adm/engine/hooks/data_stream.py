"""Random numbers of the training step from (seed, iteration, rank), so that resuming is exact."""

from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import Sampler

from mmseg_adm.datasets.stream import StreamSampler, seed_everything
from mmseg_adm.registry import HOOKS


@HOOKS.register_module()
class DataStreamHook(Hook):
    """Seeds every iteration: dropout then draws the same after a resume as without one.

    The data come from :class:`~mmseg_adm.datasets.stream.StreamSampler`. Where a resumed run
    starts, the train loop skips to (onedl), or reads and discards up to it (upstream); a loop that
    counts epochs starts with one. Other samplers are left as they are, and what that means is said.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Refuse a stream that is not the run's, and say where resuming would not be exact.

        Raises:
            ValueError: If the sampler's seed is not the run's, as after resuming a run of
                another seed.
        """
        sampler = _sampler_of(runner)
        if not isinstance(sampler, StreamSampler):
            runner.logger.warning(
                f'A resumed run would see other images than this one: {type(sampler).__name__} '
                "draws them. For the same: train_dataloader=dict(sampler=dict(type='mmseg_adm."
                "StreamSampler'), dataset=dict(type='mmseg_adm.StreamDataset', dataset=dict(...)))"
            )
        elif sampler.seed != (seed := _seed_of(runner)):
            advice = (
                'remove randomness.diff_rank_seed, the stream is dealt out to the processes anyway'
                if _adds_rank(runner)
                else f'set randomness.seed={seed}'
            )
            raise ValueError(
                f'the data stream has seed {sampler.seed}, but the run, or the one that it '
                f'resumes, has {seed}: {advice}'
            )
        if getattr(runner.train_loop, 'fast_forward_on_resume', False):
            runner.logger.warning(
                'A resumed run starts with the first images again: to go on with the next, set '
                'train_cfg.fast_forward_on_resume=False'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Have the stream end with the epoch, where the loop waits for that."""
        sampler = _sampler_of(runner)
        if isinstance(sampler, StreamSampler) and isinstance(
            runner.train_loop, EpochBasedTrainLoop
        ):
            sampler.read_epoch(runner.epoch)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Seed after the batch was loaded: loading without workers draws from the same states."""
        seed_everything(runner.seed, runner.iter, get_rank())


def _adds_rank(runner: Runner) -> bool:
    """Whether MMEngine adds the rank to the seed of each process."""
    return bool(runner._randomness_cfg.get('diff_rank_seed'))


def _seed_of(runner: Runner) -> int:
    """The seed that all processes have in common."""
    return runner.seed - get_rank() if _adds_rank(runner) else runner.seed


def _sampler_of(runner: Runner) -> Sampler:
    """What draws the images, also where a batch sampler of one's own asks it."""
    loader = runner.train_dataloader
    return getattr(loader.batch_sampler, 'sampler', loader.sampler)
