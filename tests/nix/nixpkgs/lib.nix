# The functions of nixpkgs' lib that the project uses, with the same meaning.
rec {
  genAttrs =
    names: f:
    builtins.listToAttrs (
      map (name: {
        inherit name;
        value = f name;
      }) names
    );
  optional = condition: value: if condition then [ value ] else [ ];
  versionAtLeast = version: least: builtins.compareVersions version least >= 0;
  toLower = builtins.replaceStrings upper lower;
  hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
  concatMapStrings = f: list: builtins.concatStringsSep "" (map f list);
  fakeHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

  licenses = genAttrs [ "eupl12" "gpl2Plus" "gpl3Plus" ] (name: name);
  platforms.linux = [
    "aarch64-linux"
    "x86_64-linux"
  ];

  upper = letters "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
  lower = letters "abcdefghijklmnopqrstuvwxyz";
  letters = text: builtins.genList (i: builtins.substring i 1 text) (builtins.stringLength text);
}
