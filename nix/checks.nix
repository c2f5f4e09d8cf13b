# `nix flake check`: what .ci/run runs, as far as it can run in Nix's sandbox.
{
  pkgs,
  starpu,
  python,
  src,
}:
let
  check =
    name: commands:
    pkgs.stdenv.mkDerivation {
      name = "dahl-${name}";
      inherit src;
      nativeBuildInputs = [
        python.environment
        pkgs.pkg-config
        pkgs.git
      ];
      buildInputs = starpu.dependencies;
      STARPU_PREFIXES = starpu.prefixes;
      dontConfigure = true;
      buildPhase = ''
        runHook preBuild
        export HOME="$TMPDIR"
        ${commands}
        runHook postBuild
      '';
      installPhase = "touch $out";
    };
in
{
  ruff = check "ruff" "ruff check --no-cache .";
  mypy = check "mypy" "mypy";
  imports = check "imports" "lint-imports";
  # tests/scripts needs /usr/bin/env and tests/nix needs nix, which the sandbox has not.
  tests = check "tests" ''
    python scripts/get-starpu
    python -m energy.build
    python -m dahl.starpu.build
    python -m pytest -p no:cacheprovider --ignore=tests/scripts --ignore=tests/nix
  '';
}
