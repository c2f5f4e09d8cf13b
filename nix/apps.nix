# `nix run .#train -- model=lenet epochs=1`, in a checkout; `nix run .#versions`.
{
  pkgs,
  starpu,
  python,
}:
let
  # As a build environment has it, with what hwloc's own file refers to.
  pkgConfigPath =
    pkgs.runCommand "dahl-pkg-config-path"
      {
        nativeBuildInputs = [ pkgs.pkg-config ];
        buildInputs = starpu.dependencies;
      }
      ''
        printf '%s' "$PKG_CONFIG_PATH" >$out
      '';

  app = program: {
    type = "app";
    program = "${program}/bin/${program.name}";
  };
in
rec {
  train = app (
    pkgs.writeShellApplication {
      name = "train";
      runtimeInputs = [
        pkgs.gcc
        pkgs.gnumake
        # The wrapped one reads PKG_CONFIG_PATH in build environments only.
        pkgs.pkg-config-unwrapped
        pkgs.git
        pkgs.util-linux
      ];
      text = ''
        if [ ! -x scripts/setup ]; then
            echo "train: there is no scripts/setup here; run it at the top of a checkout" >&2
            exit 1
        fi
        export STARPU_PREFIXES="${starpu.prefixes}" DAHL_VENV="${python.environment}"
        PKG_CONFIG_PATH="$(cat "${pkgConfigPath}")"
        export PKG_CONFIG_PATH
        scripts/setup
        exec "$DAHL_VENV/bin/python" -m experiments.run scheduler=eager_energy "$@"
      '';
    }
  );

  versions = app (
    pkgs.writeShellApplication {
      name = "versions";
      text = ''cat "${python.versions}"'';
    }
  );

  default = train;
}
