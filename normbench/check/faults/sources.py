"""The real bugs that faults stand for, as links with the title of the thread."""


def _link(repository: str, path: str, title: str) -> str:
    number = path.partition("/")[2]
    return f"[{repository} {number}: {title}](https://github.com/{repository}/{path})"


def _torch(path: str, title: str) -> str:
    return _link("pytorch/pytorch", path, title)


# The thread of the fix; that of issue 338 was not seen.
KERAS_CORE_338 = _link("keras-team/keras-core", "pull/339", "Fix Batch Norm Variance (fixes 338)")
KERAS_8982 = _link(
    "keras-team/keras",
    "issues/8982",
    "BatchNormalization population statistics is wrong with small minibatches",
)
JAX_443 = _link("jax-ml/jax", "pull/443", "fix batchnorm square vs sqrt error")
FLAX_1491 = _link(
    "google/flax",
    "issues/1491",
    "Variance can be negative in BatchNorm computation, leading to NaN's",
)
ONEDNN_3543 = _link(
    "uxlfoundation/oneDNN",
    "issues/3543",
    "group_normalization_backward produces incorrect gradients for diff_src",
)
PYG_2917 = _link(
    "pyg-team/pytorch_geometric",
    "pull/2917",
    "Numerical error in LayerNorm leading to NaN in gradients",
)
TORCH_586 = _torch(
    "issues/586", "CUDNN batchnorm backprop doesn't work properly in evaluation mode"
)
TORCH_1381 = _torch(
    "issues/1381", "BatchNorm shouldn't use Bessel's correction for a batch size of 1"
)
TORCH_4348 = _torch(
    "issues/4348", "torch.nn.InstanceNorm1d has inconsistent semantics of train and eval"
)
TORCH_22192 = _torch("issues/22192", "Sync Batchnorm running var update issue")
TORCH_36382 = _torch("pull/36382", "Fixing SyncBN dgrad")
TORCH_40302 = _torch("issues/40302", "one-pass variance cancels (thread not seen)")
TORCH_62594 = _torch(
    "issues/62594",
    "classy_vision resnext101_32x4d gives incorrect result when passed channel last Tensor",
)
TORCH_64100 = _torch(
    "pull/64100", "Fix bad use of channels last kernel in sync batch norm backward"
)
TORCH_92671 = _torch("pull/92671", "Fix GroupNorm backward prop on CUDA")
TORCH_109652 = _torch("issues/109652", "InstanceNorm does not catch dim mismatch")
TORCH_140913 = _torch("issues/140913", "NHWC GroupNorm weight gradient error")
TORCH_147303 = _torch("issues/147303", "fp16 channels_last created Nan in batchnorm backward")
TORCH_175189 = _torch(
    "issues/175189",
    "BatchNorm2d backward produces wrong gradients on channels_last/non-contiguous",
)
TORCH_178872 = _torch("issues/178872", "backward pass at evaluation (thread not seen)")
TORCH_181696 = _torch(
    "issues/181696", "Eval-mode BatchNorm/GroupNorm produces wrong output under torch.compile"
)
TORCH_183120 = _torch(
    "issues/183120",
    "torch.compile Inductor produces wrong output for BatchNorm2d + ELU + GroupNorm",
)
TORCH_188375 = _torch(
    "issues/188375", "CPU LayerNorm normalized_shape=(1,) gives nonzero weight.grad"
)
INSTANCE_NORM_HERE = (
    "[Wrong gradients of InstanceNorm2d and BatchNorm2d on CPUs]"
    "(upstream/instance-norm-gradient.md)"
)
