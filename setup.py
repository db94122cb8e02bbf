"""Metadata of kconvert; pyproject.toml holds only the build system and the settings of the tools."""

from __future__ import annotations

from setuptools import find_packages, setup

# Every bound is on purpose: the lower one is the oldest release whose interface is used, the upper one the
# next release that may break it.
REQUIRES = [
    # QKeras comes from qkeras-v3 (imported as `qkeras`), the only one that runs on Keras 3. It names no
    # bounds itself, so those of TensorFlow and Keras stand here; 2.16 is the first TensorFlow with Keras 3,
    # 2.21 the newest tried.
    "tensorflow>=2.16,<2.22",
    "keras>=3.0,<4",
    "qkeras-v3>=1.2,<2",
    "numpy>=1.26,<3",
    "h5py>=3.10,<4",
    "jinja2>=3.1,<4",
    "pyparsing>=3.0,<4",
    "pyyaml>=6.0,<7",
    "matplotlib>=3.7,<4",
    "scikit-learn>=1.3,<2",
    "click>=8.1,<9",
    "rich>=13,<16",
    # Reading tflite files (the schema), and running them to compare: tf.lite.Interpreter is deprecated, LiteRT is its
    # successor. flatbuffers counts its releases by date; its lower bound is TensorFlow's.
    "tflite>=2.18,<3",
    "flatbuffers>=24.3.25,<26",
    "ai-edge-litert>=2.0,<3",
    # Images to calibrate with.
    "pillow>=10,<14",
]

DEV = [
    "pytest>=8,<10",
    "pytest-xdist>=3.5,<4",
    "hypothesis>=6.90,<7",
    # The formatter's output and mypy's findings change between these releases.
    "ruff>=0.17,<0.18",
    "mypy>=2.4,<3",
    "types-PyYAML>=6.0,<7",
    # Writes the Keras 2 models that the readers are tested with; its releases follow TensorFlow's.
    "tf-keras>=2.16,<2.22",
]

setup(
    name="kconvert",
    version="0.1.0",
    description="Turn trained Keras models into bit-exact fixed-point C++ for FPGA high-level synthesis",
    author="The kconvert authors",
    license="MIT",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: C++",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Electronic Design Automation (EDA)",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    packages=[
        *find_packages(include=["kconvert", "kconvert.*"]),
        "kconvert_contrib",
        *(f"kconvert_contrib.{package}" for package in find_packages("contrib")),
    ],
    package_dir={"kconvert_contrib": "contrib"},
    package_data={
        "kconvert": ["py.typed", "templates/**/*", "csim/include/*", "kpu/native/*"],
        "kconvert_contrib.analog": ["templates/**/*"],
        "kconvert_contrib.approx": ["data/*", "templates/**/*", "native/*"],
        "kconvert_contrib.lutnet": ["templates/**/*", "native/*"],
    },
    entry_points={
        "console_scripts": ["kconvert=kconvert.cli:main"],
        "kconvert.plugins": [
            "analog=kconvert_contrib.analog.conversion",
            "approx=kconvert_contrib.approx.conversion",
            "lutnet=kconvert_contrib.lutnet.conversion",
        ],
    },
    zip_safe=False,
    install_requires=REQUIRES,
    extras_require={"dev": DEV},
)
