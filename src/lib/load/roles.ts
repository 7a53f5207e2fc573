/** Roles that a dump names in policies and user mappings, whatever `--no-owner` leaves out: the target must have them. */
import {asBackupError, BackupError, messageOf} from '../errors.ts';
import {query, quoteIdentifier, quoteLiteral, type Session, uninterrupted} from '../postgres/query.ts';

/**
 * Makes the roles that a dump names and the server lacks: without login and without rights, for a scratch restore only.
 * @returns the roles that were made; give them to `dropRoles`
 * @throws BackupError ROLES_MISSING when this role may not make them
 */
export async function createMissingRoles(session: Session, roles: readonly string[]): Promise<string[]> {
  const missing = await missingRoles(session, roles);
  if (missing.length === 0) return [];
  // Not interrupted: the server goes on when psql is gone, and then nobody would drop them.
  try {
    await query(
      uninterrupted(session),
      ['BEGIN;', ...missing.map((role) => `CREATE ROLE ${quoteIdentifier(role)} NOLOGIN;`), 'COMMIT;'].join('\n'),
    );
    return missing;
  } catch (error) {
    if (error instanceof BackupError && error.code === 'POSTGRES_QUERY_FAILED') throw rolesMissing(missing);
    throw error;
  }
}

/** @returns the roles that could not be dropped, with the reason: another run that names one may use it by now */
export async function dropRoles(session: Session, roles: readonly string[]): Promise<{role: string; reason: string}[]> {
  const failed: {role: string; reason: string}[] = [];
  for (const role of roles) {
    try {
      await query(uninterrupted(session), `DROP ROLE IF EXISTS ${quoteIdentifier(role)};`);
    } catch (error) {
      failed.push({role, reason: asBackupError(error).reason ?? messageOf(error)});
    }
  }
  return failed;
}

/** Roles that the server does not have. */
export async function missingRoles(session: Session, roles: readonly string[]): Promise<string[]> {
  if (roles.length === 0) return [];
  const list = roles.map((role) => `(${quoteLiteral(role)})`).join(', ');
  const answer = await query(
    session,
    `SELECT name FROM (VALUES ${list}) AS t (name)
     WHERE name NOT IN (SELECT rolname FROM pg_catalog.pg_roles) ORDER BY name;`,
  );
  return answer.split('\n').filter(Boolean);
}

/** The error for roles that policies of the backup name and the server lacks. */
export function rolesMissing(roles: readonly string[]): BackupError {
  return new BackupError('Roles are missing on the target server', {
    code: 'ROLES_MISSING',
    kind: 'postgres',
    reason: `policies or user mappings of the backup name ${roles.join(', ')}; nothing was changed`,
    hint: `Make them first: ${roles.map((role) => `CREATE ROLE ${quoteIdentifier(role)} NOLOGIN;`).join(' ')}`,
  });
}
