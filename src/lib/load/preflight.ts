/** Whether a target fits a backup: what can be known before anything is restored. Pure. */

/** What a backup says of where it comes from; one of the older procedure says nothing. */
export interface BackupOrigin {
  serverVersion: string;
  pgDumpVersion: string;
  /** Of the dump. */
  encoding: string;
  /** Of the source database; manifests before this field don't have it. */
  serverEncoding?: string | undefined;
  dumpBytes: number;
  /** Of the source database on its server. */
  databaseBytes?: number | undefined;
}

export interface TargetServer {
  version: string;
  major: number;
  /** Of the target database. */
  encoding: string;
  /** Where the database lies; undefined when it can't be known. */
  freeBytes: number | undefined;
}

export interface Preflight {
  /** What makes the restore likely to fail, or to give something else: to be accepted by somebody. */
  risks: string[];
  /** What is worth knowing. */
  warnings: string[];
}

/** A restored database takes so many times its plain dump (measured: 892 MB, and 1.3 GB with its indexes). */
const databaseShare = 1.5;

export function preflight(origin: BackupOrigin, target: TargetServer): Preflight {
  const findings = [versionFinding(origin, target), encodingFinding(origin, target), spaceFinding(origin, target)];
  const ofKind = (kind: Finding['kind']) => findings.flatMap((finding) => (finding?.kind === kind ? finding.text : []));
  return {risks: ofKind('risk'), warnings: ofKind('warning')};
}

interface Finding {
  kind: 'risk' | 'warning';
  text: string;
}

const risk = (text: string): Finding => ({kind: 'risk', text});
const warning = (text: string): Finding => ({kind: 'warning', text});

/** `15.14 (Debian 15.14-1)`, `17beta1`; undefined for what begins otherwise. */
function majorOf(version: string): number | undefined {
  const match = /^\d+/.exec(version);
  return match ? Number(match[0]) : undefined;
}

/** PostgreSQL promises that a dump loads into a server as new as pg_dump, or newer. */
function versionFinding({serverVersion, pgDumpVersion}: BackupOrigin, {version, major}: TargetServer) {
  const source = majorOf(serverVersion);
  if (source !== undefined && source > major) {
    return risk(
      `the backup is of PostgreSQL ${serverVersion}, and the target's server is older (${version}): what it does not know stops the restore`,
    );
  }
  const dumper = majorOf(pgDumpVersion);
  if (dumper === undefined || dumper <= major) return undefined;
  return warning(
    `the backup was written by pg_dump ${pgDumpVersion}, which is newer than the target's server (${version}): it may write what the server does not know, which would stop the restore`,
  );
}

/** The dump is in UTF-8, and the server converts it; bytes of an encoding that nobody knows can't be converted. */
function encodingFinding({encoding, serverEncoding}: BackupOrigin, target: TargetServer) {
  const source = serverEncoding ?? (encoding === 'UTF8' ? undefined : encoding);
  const to = target.encoding;
  if (source === to || (to === 'UTF8' && source !== 'SQL_ASCII' && source !== 'MULE_INTERNAL')) return undefined;
  const outcome =
    to === 'SQL_ASCII'
      ? 'the server would convert and check nothing, and sort and search by bytes'
      : `what cannot be written in ${to} stops the restore`;
  if (source !== undefined) {
    return risk(`the backup is of a database in ${source}, and the target's encoding is ${to}: ${outcome}`);
  }
  return warning(`the target's encoding is ${to}, and the backup does not say which one its database had: ${outcome}`);
}

function spaceFinding({dumpBytes, databaseBytes}: BackupOrigin, {freeBytes}: TargetServer) {
  const needed = Math.round(databaseBytes ?? dumpBytes * databaseShare);
  if (freeBytes === undefined || freeBytes >= needed) return undefined;
  const megabytes = (bytes: number) => `${Math.ceil(bytes / 1e6).toLocaleString('en-US')} MB`;
  return risk(
    `the server's disk has ${megabytes(freeBytes)} free, and the restored database takes about ${megabytes(needed)} (what the target holds goes only at the end)`,
  );
}
