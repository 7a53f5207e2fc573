import {Args, type Command} from '@oclif/core';
import {BaseCommand} from '../base-command.ts';
import {type Completed, type CompletedFlag, completionScript, type Shell, shells} from '../ui/completion.ts';

export default class Completion extends BaseCommand {
  static override summary = 'Print a script that completes commands and flags in bash or zsh.';
  static override description =
    'The script holds the commands of this version: it starts no program, and is made anew with every shell.\n\n' +
    'Exit codes: 0 done, 2 usage.';
  static override examples = [
    "echo 'source <(<%= config.bin %> <%= command.id %> bash)' >> ~/.bashrc",
    "echo 'source <(<%= config.bin %> <%= command.id %> zsh)' >> ~/.zshrc",
  ];
  static override args = {
    shell: Args.custom<Shell>({description: 'The shell.', options: [...shells]})({required: true}),
  };

  async run(): Promise<{script: string}> {
    const {args} = await this.parse(Completion);
    const commands = this.config.commands.filter(({hidden}) => !hidden).map(completed);
    const script = completionScript(
      args.shell,
      this.config.bin,
      commands.sort((a, b) => (a.name < b.name ? -1 : 1)),
    );
    // Not masked: no setting is in it, and a password that is a command's name must not break it.
    this.log(script.trimEnd());
    return {script};
  }
}

function completed({id, summary, flags, args}: Command.Loadable): Completed {
  const shown = Object.values(flags).filter(({hidden}) => !hidden);
  const help: CompletedFlag = {name: '--help', description: 'Show help.', takesValue: false, values: []};
  return {
    name: id.replaceAll(':', ' '),
    summary: summary ?? '',
    flags: [...shown.map(completedFlag), help],
    values: Object.values(args)[0]?.options ?? [],
  };
}

function completedFlag(flag: Command.Flag.Cached): CompletedFlag {
  const takesValue = flag.type === 'option';
  const [description = ''] = (flag.summary ?? flag.description ?? '').split(/(?<=\.)\s/);
  return {name: `--${flag.name}`, description, takesValue, values: takesValue ? (flag.options ?? []) : []};
}
