import path from 'node:path';
import {Flags} from '@oclif/core';
import {BaseCommand} from '../../base-command.ts';
import {scaffoldFlags} from '../../flags.ts';
import {type InitResult, initGithub} from '../../lib/operations/init.ts';
import {initGithubText} from '../../ui/init-summary.ts';

export default class InitGithub extends BaseCommand {
  static override summary = 'Write GitHub workflows that back up every night and verify every month.';
  static override description =
    'They go into .github/workflows of the repository that the current directory is in. A file that is there with another text is ' +
    'kept, and the difference is shown. On failure the workflows open an issue, or comment on the open one.\n\n' +
    'Exit codes: 0 done, 2 settings, 7 a file that differs was kept.';
  static override examples = [
    '<%= config.bin %> <%= command.id %> --dry-run',
    '<%= config.bin %> <%= command.id %>',
    '<%= config.bin %> <%= command.id %> --overwrite',
  ];
  static override flags = {
    repository: Flags.string({
      description: 'A directory in the repository. [default: the current one]',
      helpValue: 'DIR',
    }),
    ...scaffoldFlags,
  };

  async run(): Promise<InitResult> {
    const {flags} = await this.parse(InitGithub);
    const result = await initGithub({
      start: path.resolve(flags.repository ?? '.'),
      overwrite: flags.overwrite === true,
      dryRun: flags['dry-run'] === true,
    });
    this.report(initGithubText(result));
    if (result.files.some(({state}) => state === 'kept')) this.finishWith(result, 7);
    return result;
  }
}
