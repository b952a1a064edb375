from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["inrcodec", "inrcodec.*"]),
        *find_packages("kernels"),
        *find_packages("formats"),
    ],
    package_dir={
        "inrcodec_kernels": "kernels/inrcodec_kernels",
        "inrcodec_formats": "formats/inrcodec_formats",
    },
)
