# The hashes of the sources that do not come with nixpkgs: all of them, and only here.
#
# Filled in: computed from the sources themselves (`nix hash path` on the unpacked release, `nix hash file` on the
# wheel).
# lib.fakeHash: NOT FILLED IN. Building what has one fails and prints the right hash as `got:`. This fills them in,
# first `src`, then, run once more, `cargo`:
#
#   nix build .#alumet-agent 2>&1 | grep got:
#
# The revision of nixpkgs is not fixed either: there is no flake.lock yet. This makes it, to be committed:
#
#   nix flake lock
{ lib }:
{
  # FxT 0.3.15
  fxt = "sha256-5sBbzF2ua7t9wjh4L5B/Gzjp2AVDdxmpZ6WugQXBxrI=";
  # PajeNG 1.3.10
  pajeng = "sha256-g3aT5SNwrhk7d/f5ElJfSqXQ6MFnsuVQ0fSpbiH94Y0=";
  # types-cffi as in requirements.lock, py3-none-any
  types-cffi = "sha256-hRtv+luWLFd6IzC5isC2DFbJBNCGcmJ2lGOI9YoM/68=";
  # Alumet 0.9.4
  alumet = {
    src = lib.fakeHash;
    cargo = lib.fakeHash;
  };
}
