/** Shell completion, as a script that holds all it needs: pressing Tab starts no program and reads no file. */

/** A command as completion knows it. */
export interface Completed {
  /** Its words: `files list`. */
  name: string;
  summary: string;
  flags: CompletedFlag[];
  /** The values that its first argument takes, if only some are taken. */
  values: readonly string[];
}

export interface CompletedFlag {
  /** `--label` */
  name: string;
  description: string;
  takesValue: boolean;
  /** The values that there are, if only some are taken. */
  values: readonly string[];
}

export const shells = ['bash', 'zsh'] as const;
export type Shell = (typeof shells)[number];

/** @param program the name that the commands are called by */
export function completionScript(shell: Shell, program: string, commands: readonly Completed[]): string {
  return shell === 'bash' ? bashScript(program, commands) : zshScript(program, commands);
}

interface Word {
  word: string;
  text: string;
}

/** What can follow words of commands: by ` files` are found `list`, `migrate` and so on. */
function followers(program: string, commands: readonly Completed[]): Map<string, Word[]> {
  const found = new Map<string, Word[]>();
  for (const {name, summary, values} of commands) {
    const words = name.split(' ');
    if (values.length > 0)
      found.set(
        pathOf(words),
        values.map((word) => ({word, text: word})),
      );
    words.forEach((word, index) => {
      const before = pathOf(words.slice(0, index));
      const known = found.get(before) ?? [];
      const isWhole = index === words.length - 1;
      if (!known.some((one) => one.word === word))
        known.push({word, text: isWhole ? summary : `${program} ${words.slice(0, index + 1).join(' ')} …`});
      found.set(before, known);
    });
  }
  return found;
}

/** The key of the scripts' cases: every word with a space before it. */
function pathOf(words: readonly string[]): string {
  return words.map((word) => ` ${word}`).join('');
}

function quoted(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function patterns(texts: readonly string[]): string {
  return texts.map(quoted).join('|');
}

interface Parts {
  name: string;
  /** ` files`, ` files list`: words that make a command, or the beginning of one. */
  paths: string;
  tree: [path: string, words: Word[]][];
  /** Flags that take any value: ` backup --label`. Nothing but a file's name can be offered. */
  open: string;
  /** Flags that take one of some values. */
  closed: [path: string, values: readonly string[]][];
}

function partsOf(program: string, commands: readonly Completed[]): Parts {
  const tree = [...followers(program, commands)];
  const valued = commands.flatMap(({name, flags}) =>
    flags.filter(({takesValue}) => takesValue).map((flag) => ({path: ` ${name} ${flag.name}`, values: flag.values})),
  );
  return {
    name: `_${program.replaceAll(/\W/g, '_')}`,
    paths: patterns(tree.flatMap(([before, words]) => words.map(({word}) => `${before} ${word}`))),
    tree,
    open: patterns(valued.filter(({values}) => values.length === 0).map(({path}) => path)),
    closed: valued.filter(({values}) => values.length > 0).map(({path, values}) => [path, values]),
  };
}

/** Runs in bash 3.2 too, which macOS has: no associative arrays. An empty COMPREPLY gives names of files. */
function bashScript(program: string, commands: readonly Completed[]): string {
  const {name, paths, tree, open, closed} = partsOf(program, commands);
  const words = (path: string, list: readonly string[]) => `    ${quoted(path)}) choices=${quoted(list.join(' '))} ;;`;
  return `# bash completion of ${program}: source <(${program} completion bash)
${name}() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD - 1]}" command='' choices='' index
  # Bash makes three words of --flag=value.
  if [[ $current == '=' ]]; then
    current=''
  elif [[ $previous == '=' ]]; then
    previous="\${COMP_WORDS[COMP_CWORD - 2]}"
  fi
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    case "$command \${COMP_WORDS[index]}" in
    ${paths}) command="$command \${COMP_WORDS[index]}" ;;
    *) break ;;
    esac
  done
  case "$command $previous" in
    ${open}) return ;;
${closed.map(([path, values]) => words(path, values)).join('\n')}
  esac
  if [[ -z $choices ]]; then
    case "$command" in
${tree
  .map(([path, list]) =>
    words(
      path,
      list.map(({word}) => word),
    ),
  )
  .join('\n')}
    esac
  fi
  if [[ -z $choices && $current == -* ]]; then
    case "$command" in
${commands
  .map((one) =>
    words(
      ` ${one.name}`,
      one.flags.map((flag) => flag.name),
    ),
  )
  .join('\n')}
    esac
  fi
  if [[ -n $choices ]]; then COMPREPLY=($(compgen -W "$choices" -- "$current")); fi
}
complete -o default -F ${name} ${program}
`;
}

function zshScript(program: string, commands: readonly Completed[]): string {
  const {name, paths, tree, open, closed} = partsOf(program, commands);
  const described = (list: readonly Word[]) => list.map(({word, text}) => quoted(`${word}:${text}`)).join(' ');
  return `#compdef ${program}
# zsh completion of ${program}: source <(${program} completion zsh), after compinit
${name}() {
  local command='' index
  local -a choices
  for ((index = 2; index < CURRENT; index++)); do
    case "$command \${words[index]}" in
    (${paths}) command="$command \${words[index]}" ;;
    (*) break ;;
    esac
  done
  case "$command \${words[CURRENT - 1]}" in
    (${open}) _files; return ;;
${closed.map(([path, values]) => `    (${quoted(path)}) compadd ${values.map(quoted).join(' ')}; return ;;`).join('\n')}
  esac
  case "$command" in
${tree.map(([path, list]) => `    (${quoted(path)}) choices=(${described(list)}); _describe command choices; return ;;`).join('\n')}
  esac
  if [[ "\${words[CURRENT]}" != -* ]]; then
    _files
    return
  fi
  case "$command" in
${commands
  .map((one) => {
    const flags = one.flags.map((flag) => ({word: flag.name, text: flag.description}));
    return `    (${quoted(` ${one.name}`)}) choices=(${described(flags)}) ;;`;
  })
  .join('\n')}
  esac
  _describe -o flag choices
}
if [[ "\${funcstack[1]}" == ${name} ]]; then
  ${name} "$@"
else
  compdef ${name} ${program}
fi
`;
}
