import {Flags} from '@oclif/core';
import {BaseCommand} from '../base-command.ts';
import {durationOf, pingFlag} from '../flags.ts';
import {defaultHealthPolicy} from '../lib/catalog/health.ts';
import {defaultRetention} from '../lib/catalog/retention.ts';
import {type StatusResult, status} from '../lib/operations/status.ts';
import {formatAge} from '../ui/format.ts';
import {prometheusText, writePrometheusFile} from '../ui/prometheus.ts';
import {statusSummary} from '../ui/summary.ts';

export default class Status extends BaseCommand {
  static override summary = 'Say whether there is a fresh, proven backup: for a monitor, and for you.';
  static override description =
    'Reads the bucket, never local state. A day without a backup is an alarm when it is one of the last seven.\n\n' +
    'Exit codes: 0 all is well, 2 settings, 4 storage, 6 something is wrong.';
  static override examples = [
    '<%= config.bin %> <%= command.id %>',
    '<%= config.bin %> <%= command.id %> --max-age 26h --max-unverified 35d --json',
    '<%= config.bin %> <%= command.id %> --prometheus /var/lib/node_exporter/loma-backup.prom',
  ];
  static override flags = {
    'max-age': Flags.string({
      description: 'How old the newest complete backup may be. [default: 26h]',
      helpValue: 'TIME',
    }),
    'max-unverified': Flags.string({description: 'How old the last proof may be. [default: 35d]', helpValue: 'TIME'}),
    'keep-days': Flags.integer({
      description: `Look for days without a backup in this window. [default: ${defaultRetention.keepDays}]`,
      min: 1,
    }),
    prometheus: Flags.string({description: "Write a text file for Prometheus' node exporter.", helpValue: 'FILE'}),
    ping: pingFlag,
  };

  async run(): Promise<StatusResult> {
    const {flags} = await this.parse(Status);
    const policy = {
      maxAgeMs: durationOf('--max-age', flags['max-age']) ?? defaultHealthPolicy.maxAgeMs,
      maxUnverifiedMs: durationOf('--max-unverified', flags['max-unverified']) ?? defaultHealthPolicy.maxUnverifiedMs,
      retentionDays: flags['keep-days'] ?? defaultRetention.keepDays,
    };
    const {pingUrl, ...settings} = this.settings(['store', 'optionalKeys', 'pingUrl'], {
      LOMA_BACKUP_PING_URL: flags.ping,
    });
    const result = await this.withHeartbeat(
      pingUrl,
      statusSummary,
      (outcome) => outcome.isHealthy,
      () => status({...settings, policy, formatAge}, this.runtime()),
    );
    if (flags.prometheus !== undefined) await writePrometheusFile(flags.prometheus, prometheusText(result));
    this.report(statusSummary(result));
    if (!result.isHealthy) this.finishWith(result, 6);
    return result;
  }
}
