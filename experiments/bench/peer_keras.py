"""Keras on TensorFlow: the same networks as one would write them there."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"

import keras
import numpy as np
import tensorflow as tf
from flax import nnx
from jax import Array
from keras import layers

from experiments.bench import inputs
from experiments.bench.peers import Forms, Prepared
from experiments.bench.workloads import Workload
from shufflenet_jax.layers import ConvNorm
from shufflenet_jax.models.skeleton import Network
from shufflenet_jax.units import ShuffleUnit


def forms(workload: Workload, network: Network | None, variant: str) -> Forms:
    """The step or the inference as one tf.function, in the only layout of TensorFlow on a CPU.

    Without XLA, whose grouped convolutions are slow: with it, inference by 1x g=3 at batch 1 took
    1.4 times as long.
    """
    del variant
    assert network is not None
    return {"NHWC": lambda: _prepare(workload, network)}


def _prepare(workload: Workload, network: Network) -> Prepared:
    tf.config.threading.set_intra_op_parallelism_threads(workload.threads)
    model = keras_network(network, workload.subject.image_size)
    prepare_network = _training if workload.mode == "train" else _inference
    return prepare_network(workload, model)


def keras_network(network: Network, image_size: int) -> keras.Model:
    """Returns the network in Keras with copies of the weights."""
    images = keras.Input((image_size, image_size, 3))
    x = layers.ReLU()(_conv_norm(images, network.conv1))
    if network.stem.max_pool:
        x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for stage in network.stages:
        for unit in stage:
            x = _unit(x, unit)
    x = layers.GlobalAveragePooling2D()(x)
    classifier = layers.Dense(network.classifier.kernel.shape[-1])
    logits = classifier(x)
    classifier.set_weights([_array(network.classifier.kernel), _array(network.classifier.bias)])
    return keras.Model(images, logits)


def _unit(x: keras.KerasTensor, unit: ShuffleUnit) -> keras.KerasTensor:
    y = layers.ReLU()(_conv_norm(x, unit.reduce))
    y = _channel_shuffle(y, unit.groups)
    y = _conv_norm(y, unit.depthwise)
    y = _conv_norm(y, unit.expand)
    if unit.stride == 1:
        return layers.ReLU()(layers.Add()([x, y]))
    # Keras leaves the padding out of an average: pad first, so that it counts.
    shortcut = layers.AveragePooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    return layers.ReLU()(layers.Concatenate()([shortcut, y]))


def _conv_norm(x: keras.KerasTensor, box: ConvNorm) -> keras.KerasTensor:
    conv, norm = inputs.parts(box)
    size, _, _, out_channels = conv.kernel.shape
    if size > 1:
        x = layers.ZeroPadding2D(size // 2)(x)
    kernel = _array(conv.kernel)
    if conv.groups == out_channels:
        layer = layers.DepthwiseConv2D(size, conv.stride, use_bias=False)
        kernel = kernel.transpose(0, 1, 3, 2)
    else:
        layer = layers.Conv2D(out_channels, size, conv.stride, groups=conv.groups, use_bias=False)
    y = layer(x)
    layer.set_weights([kernel])
    batch_norm = layers.BatchNormalization(momentum=0.9, epsilon=1e-5)
    y = batch_norm(y)
    batch_norm.set_weights([_array(each) for each in (norm.scale, norm.bias, norm.mean, norm.var)])
    return y


def _channel_shuffle(x: keras.KerasTensor, groups: int) -> keras.KerasTensor:
    _, height, width, channels = x.shape
    y = layers.Reshape((height, width, groups, channels // groups))(x)
    return layers.Reshape((height, width, channels))(layers.Permute((1, 2, 4, 3))(y))


def _inference(workload: Workload, model: keras.Model) -> Prepared:
    images = tf.constant(inputs.batch(workload)[0])

    @tf.function
    def forward(images: tf.Tensor) -> tf.Tensor:
        return model(images, training=False)

    return Prepared(lambda: forward(images).numpy(), lambda logits: [logits])


def _training(workload: Workload, model: keras.Model) -> Prepared:
    images, labels = (tf.constant(each) for each in inputs.batch(workload))
    optimizer = keras.optimizers.SGD(inputs.LEARNING_RATE, inputs.MOMENTUM, nesterov=True)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        variables = model.trainable_variables
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, model(images, training=True)
            )
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, variables)
        # The optimizer's own weight_decay is decoupled from the momentum.
        decayed = [
            gradient + inputs.WEIGHT_DECAY * variable if len(variable.shape) > 1 else gradient
            for gradient, variable in zip(gradients, variables, strict=True)
        ]
        optimizer.apply(decayed, variables)
        return loss

    return Prepared(lambda: step(images, labels).numpy(), lambda loss: [np.asarray(loss)])


def _array(variable: nnx.Variable[Array]) -> np.ndarray:
    return np.asarray(variable[...])
