import path from 'node:path';
import {Flags} from '@oclif/core';
import {BaseCommand} from '../../base-command.ts';
import {scaffoldFlags} from '../../flags.ts';
import {type InitResult, initSystemd} from '../../lib/operations/init.ts';
import {initSystemdText} from '../../ui/init-summary.ts';

export default class InitSystemd extends BaseCommand {
  static override summary = 'Write a service and a timer for systemd that back up every night.';
  static override description =
    'The service runs as a user of its own that sees little of the machine; secrets reach it as credentials of systemd (250 or later). ' +
    'Nothing is installed or started.\n\nExit codes: 0 done, 7 a file that differs was kept.';
  static override examples = [
    '<%= config.bin %> <%= command.id %> --output units',
    '<%= config.bin %> <%= command.id %> --output /etc/systemd/system --program /opt/loma-backup/loma-backup',
  ];
  static override flags = {
    output: Flags.string({description: 'Where to write them. [default: the current directory]', helpValue: 'DIR'}),
    program: Flags.string({
      description: 'Absolute path of the program. [default: /usr/local/bin/loma-backup]',
      helpValue: 'FILE',
    }),
    ...scaffoldFlags,
  };

  async run(): Promise<InitResult> {
    const {flags} = await this.parse(InitSystemd);
    const result = await initSystemd({
      directory: path.resolve(flags.output ?? '.'),
      program: path.resolve(flags.program ?? '/usr/local/bin/loma-backup'),
      overwrite: flags.overwrite === true,
      dryRun: flags['dry-run'] === true,
    });
    this.report(initSystemdText(result));
    if (result.files.some(({state}) => state === 'kept')) this.finishWith(result, 7);
    return result;
  }
}
