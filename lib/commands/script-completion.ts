// Completion of the hal9000-* commands. The words come from their help when they are needed:
// claudy does not load the code of these programs.

import manifest from "../../package.json" with { type: "json" };

const names = Object.keys(manifest.bin)
  .filter((name) => name.startsWith("hal9000-")).join(" ");

/** Prints the actions and options in a help text. */
const wordsOfHelp = `awk '/^[A-Z].*:$/ { part = $1 }
    part == "Commands:" && /^  [a-z]/ { print $1 }
    part == "Options:" && /^  -/ { for (i = 1; i < 3; i++) if ($i ~ /^--/) print $i }'`;

const wordsFunction = `_hal9000_words() { "$@" --help 2>/dev/null |
  ${wordsOfHelp}; }`;

/** What is appended to each shell's completion of claudy. */
export const scriptCompletion = {
  bash: `${wordsFunction}
_hal9000() {
  local current=\${COMP_WORDS[COMP_CWORD]} known=1
  [ "$COMP_CWORD" -eq 1 ] || known=2
  COMPREPLY=($(compgen -W "$(_hal9000_words "\${COMP_WORDS[@]:0:known}")" -- "$current")
    $(compgen -d -- "$current"))
}
complete -F _hal9000 ${names}
`,
  zsh: `${wordsFunction}
_hal9000() {
  compadd -- $(_hal9000_words "\${(@)words[1,$((CURRENT == 2 ? 1 : 2))]}")
  _files -/
}
(( $+functions[compdef] )) && compdef _hal9000 ${names}
`,
  fish: `function _hal9000_words
  set -l words (commandline -opc)
  $words[1..2] --help 2>/dev/null | ${wordsOfHelp}
end
for name in ${names}
  complete -c $name -a '(_hal9000_words)'
end
`,
} as const;
