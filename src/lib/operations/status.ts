import {isRegular} from '../catalog/backups.ts';
import {assessHealth, type Finding, type HealthPolicy} from '../catalog/health.ts';
import {backupsPrefix, partOf} from '../catalog/key-names.ts';
import {fingerprintsOf, keyring} from '../encrypt/keys.ts';
import {openStores} from '../upload/open-store.ts';
import {readCatalog} from './catalog.ts';
import type {ListSettings} from './list.ts';
import type {Runtime} from './runtime.ts';

export interface StatusSettings extends ListSettings {
  policy: HealthPolicy;
  /** How ages are written. */
  formatAge: (ms: number) => string;
}

export interface StatusResult {
  at: Date;
  isHealthy: boolean;
  findings: Finding[];
  backups: number;
  /** Of the newest complete backup, but for those that were taken before a restore. */
  newestKey: string | undefined;
}

/** Answers from the bucket alone: is there a fresh, proven backup? */
export async function status(
  settings: StatusSettings,
  runtime: Pick<Runtime, 'signal' | 'now'>,
): Promise<StatusResult> {
  const {optionalKeys} = settings;
  const keys = optionalKeys && keyring(optionalKeys.current, optionalKeys.previous);
  using stores = await openStores(settings.store);
  const backups = await readCatalog(stores.backups, keys, runtime.signal);
  const unfinishedUploads: Date[] = [];
  for await (const {key, startedAt} of stores.backups.unfinishedUploads(backupsPrefix)) {
    if (partOf(key)) unfinishedUploads.push(startedAt);
  }
  const at = runtime.now();
  const findings = assessHealth(
    {
      backups,
      unfinishedUploads,
      keyFingerprints: keys && fingerprintsOf(keys),
      formatAge: settings.formatAge,
    },
    settings.policy,
    at,
  );
  return {
    at,
    isHealthy: findings.every(({isGood}) => isGood),
    findings,
    backups: backups.length,
    newestKey: backups.find(isRegular)?.key,
  };
}
