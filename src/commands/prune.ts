import {Flags} from '@oclif/core';
import {BaseCommand} from '../base-command.ts';
import {retentionFlags, retentionOf} from '../flags.ts';
import {type PruneResult, prune, pruneSteps, requirePruned} from '../lib/operations/prune.ts';
import {pruneSummary} from '../ui/summary.ts';

export default class Prune extends BaseCommand {
  static override summary = 'Delete backups that the retention policy no longer keeps.';
  static override description =
    'The newest complete backups of each database (full ones, those with rows left out, those taken before a restore, and those that no configured ' +
    'key opens each count for themselves) and held ones are never deleted. Unfinished uploads of this program to which no part ' +
    'came for a day are aborted.\n\nExit codes: 0 done, 2 settings, 4 storage, or a backup could not be deleted.';
  static override examples = [
    '<%= config.bin %> <%= command.id %> --dry-run',
    '<%= config.bin %> <%= command.id %> --keep-days 90 --keep-last 14',
  ];
  static override flags = {
    ...retentionFlags,
    'dry-run': Flags.boolean({description: 'Say what would be deleted, and delete nothing.'}),
  };

  async run(): Promise<PruneResult> {
    const {flags} = await this.parse(Prune);
    const settings = this.settings(['store', 'optionalKeys']);
    const result = await this.observe(pruneSteps, (runtime) =>
      prune({...settings, retention: retentionOf(flags), dryRun: flags['dry-run'] === true}, runtime),
    );
    this.report(pruneSummary(result));
    return this.required(result, requirePruned);
  }
}
