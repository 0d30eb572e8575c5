"""What somebody probably meant who wrote a name that there isn't."""

import difflib
import re
from collections.abc import Sequence

# What other programs call our settings, the likelier meaning first. Written as `bare` makes them.
_ALIASES = {
    "data": "dataset datapath datafolder dataroot root traindir input images",
    "data_dir": "datadir datasetdir",
    "cache_dir": "cache cachepath cachefolder",
    "holdout": "valsplit validationsplit testsplit valratio valfraction testsize split",
    "validation": "valshare validationshare devshare",
    "init_from": "pretrained finetune finetunefrom initweights initcheckpoint loadweights startfrom loadfrom",
    "freeze": "freezelayers frozen frozenlayers freezebackbone",
    "new_layer_learning_rate_factor": "lrmult headlr headlrmult lastlayerlr newlayerlr",
    "model": "arch architecture net network modelname a m",
    "image_size": "imgsize imgsz inputsize resolution cropsize traincropsize valcropsize size",
    "stored_size": "resize resizesize valresizesize",
    "epochs": "epoch e ep numepochs nepochs maxepochs numtrainepochs",
    "steps": "step iters iterations niter maxsteps numsteps maxiter trainsteps",
    "batch_size": "bs b batch batches batchsz batchsizeperdevice minibatch trainbatchsize perdevicebatchsize",
    "optimizer": "opt optim algorithm solver",
    "learning_rate": "lr lrs rate learnrate alpha eta baselr initlr stepsize",
    "momentum": "mom beta beta1",
    "weight_decay": "wd l2 decay regularization reg",
    "schedule": "sched scheduler lrscheduler lrschedule lrsched",
    "drop_every": "lrstepsize lrdropevery dropepoch",
    "drop_epochs": "milestones lrmilestones lrsteps decayepochs",
    "drop_factor": "gamma lrgamma decayrate lrdecay",
    "plateau_patience": "lrpatience",
    "patience": "earlystopping earlystop earlystoppingpatience espatience",
    "warmup_epochs": "warmup warmupepoch lrwarmup lrwarmupepochs",
    "warmup_steps": "warmupiters warmupiterations numwarmupsteps",
    "label_smoothing": "smoothing labelsmooth ls",
    "clip_norm": "clip clipgrad gradclip clipgradnorm gradientclip gradientclipval maxgradnorm maxnorm",
    "accumulate": "gradaccum gradaccumsteps gradientaccumulationsteps accumulategradbatches accumsteps updatefreq",
    "ema": "modelema emadecay modelemadecay averageweights",
    "profile": "trace profiler profiling profiledir",
    "plateau_cooldown": "cooldown",
    "weight_init": "init initialization initializer",
    "normalize": "norm normalization normalisation normalise preprocess preprocessing",
    "crop": "randomcrop",
    "flip": "hflip horizontalflip randomflip mirror",
    "color_noise": "colornoise colournoise pca pcanoise colorjitter jitter",
    "dropout": "drop dropoutrate keepprob",
    "precision": "dtype amp fp16 bf16 bfloat16 half mixedprecision fp32 float32",
    "devices": "device gpus gpu ngpus numgpus ngpu gpuids cuda numdevices accelerator",
    "coordinator": "master masteraddr disturl initmethod rdzvendpoint host",
    "num_processes": "worldsize nproc np procs nprocpernode numprocs ranks nodes",
    "processes": "worldsize nproc np n procs nprocpernode numprocs numprocesses",
    "process_id": "rank localrank",
    "seed": "randomseed manualseed rngseed",
    "output": "out o outdir outputdir savedir logdir workdir rundir expdir checkpointdir save",
    "to": "out o outdir output outputdir outputfile file save",
    "json": "out o output outputfile report",
    "run": "rundir logdir checkpointdir dir",
    "weights": "pretrained ckpt checkpoint checkpointpath load pth file modelpath",
    "resume": "continue resumefrom restart",
    "checkpoint": "ckpt which",
    "checkpoint_seconds": "saveevery saveinterval checkpointevery savefreq",
    "log_every": "printfreq loginterval logsteps logfreq logginginterval",
    "evaluate_every": "evalevery valevery testevery evalinterval evalfreq checkvaleverynepoch",
    "tensorboard": "tb tensorboardx",
    "dry_run": "check sanitycheck fastdevrun",
    "print_config": "showconfig dumpconfig printargs",
    "config": "cfg conf configfile c yaml",
    "class_names": "classes labels labelnames names",
    "home": "format framework",
}
_NAMES_OF = {}
for _name, _words in _ALIASES.items():
    for _word in _words.split():
        _NAMES_OF.setdefault(_word, []).append(_name)


def nearest(word: str, valid: Sequence[str]) -> str:
    """`; did you mean X` for the valid name nearest to `word`, or nothing when none is near."""
    close = difflib.get_close_matches(word, valid, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}" if close else ""


def nearest_setting(word: str, names: Sequence[str]) -> str | None:
    """The setting that `word` probably means, or None.

    In this order: the same letters; another program's name for it; the beginning of a name, or a name with something
    after it; one of a name's words; its initials; a name that is spelt nearly so.

    Args:
        word: with or without dashes, `lr` or `--lr`.
        names: of the settings that there are, as `learning_rate`.
    """
    given = bare(word)
    plain = {bare(name): name for name in names}
    if not given:
        return None
    if given in plain:
        return plain[given]
    for name in _NAMES_OF.get(given, ()):
        if name in names:
            return name
    starting = [name for letters, name in plain.items() if letters.startswith(given)]
    started = [name for letters, name in plain.items() if len(letters) > 2 and given.startswith(letters)]
    if starting or started:
        return starting[0] if starting else max(started, key=len)
    spoken = [name for name in names if given in name.split("_")]
    if spoken:
        return spoken[0]
    initials = [name for name in names if len(given) > 1 and given == "".join(part[0] for part in name.split("_"))]
    if initials:
        return initials[0]
    close = difflib.get_close_matches(given, plain, n=1, cutoff=0.6)
    return plain[close[0]] if close else None


def bare(word: str) -> str:
    """A name's letters and digits alone, in lower case."""
    return re.sub(r"[^a-z0-9]", "", word.lower())
