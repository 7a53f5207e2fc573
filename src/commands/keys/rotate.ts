import {Flags} from '@oclif/core';
import {BaseCommand} from '../../base-command.ts';
import {type RotateResult, requireRotated, rotateKeys, rotateSteps} from '../../lib/operations/keys-rotate.ts';
import {rotateSummary} from '../../ui/keys-summary.ts';

export default class KeysRotate extends BaseCommand {
  static override summary = 'Make PHI_ENCRYPTION_KEY open every backup, so that previous keys can be destroyed.';
  static override description =
    'Each data key is unwrapped with a key of PHI_ENCRYPTION_KEYS_PREVIOUS and wrapped under PHI_ENCRYPTION_KEY; no data is uploaded ' +
    'again. With LOMA_BACKUP_RECOVERY_PUBLIC_KEY set, under that one, too. It can be ended at any moment and run again. Backups of ' +
    'the older form have no data key: --reseal-legacy downloads them, seals them and uploads them. Files have theirs in the ' +
    'object: they are counted, and --files seals them anew.\n\n' +
    'Exit codes: 0 done, 2 settings, 4 storage, 5 a backup or file could not be rotated, 130/143 interrupted.';
  static override examples = [
    '<%= config.bin %> <%= command.id %> --dry-run',
    '<%= config.bin %> <%= command.id %> --reseal-legacy',
  ];
  static override flags = {
    files: Flags.boolean({
      description:
        'Also seal the files of the files bucket anew that need a previous key: each is downloaded and uploaded.',
    }),
    'dry-run': Flags.boolean({description: 'Say what would be done, and change nothing.'}),
    'reseal-legacy': Flags.boolean({
      description:
        'Also seal backups of the older form anew, and delete the old objects when the new ones were read back.',
    }),
  };

  async run(): Promise<RotateResult> {
    const {flags} = await this.parse(KeysRotate);
    const settings = this.settings(['store', 'keys']);
    const options = {
      dryRun: flags['dry-run'] === true,
      resealLegacy: flags['reseal-legacy'] === true,
      files: flags.files === true,
    };
    const result = await this.observe(rotateSteps, (runtime) => rotateKeys({...settings, ...options}, runtime));
    this.report(rotateSummary(result));
    return this.required(result, requireRotated);
  }
}
