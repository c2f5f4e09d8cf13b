# The Python packages that nixpkgs has of those asked for. The versions are this file's own.
{
  cffi = "2.0.0";
  cupy = "13.6.0";
  hydra-core = "1.3.2";
  hypothesis = "6.151.0";
  jinja2 = "3.1.6";
  matplotlib = "3.10.8";
  mypy = "1.19.1";
  nbmake = "1.5.5";
  numba = "0.63.1";
  numpy = "2.4.1";
  nvidia-ml-py = "13.590.44";
  optuna = "4.6.0";
  pandas = "2.3.3";
  pandas-stubs = "2.3.3.251219";
  pillow = "12.1.0";
  pooch = "1.9.0";
  pyarrow = "22.0.0";
  pytest = "9.0.2";
  pytest-timeout = "2.4.0";
  pyyaml = "6.0.3";
  rich = "14.2.0";
  ruff = "0.14.14";
  scipy = "1.17.0";
  setuptools = "80.10.1";
  submitit = "1.5.3";
  threadpoolctl = "3.6.0";
  tqdm = "4.67.1";
  types-setuptools = "80.9.0.20250822";
}
