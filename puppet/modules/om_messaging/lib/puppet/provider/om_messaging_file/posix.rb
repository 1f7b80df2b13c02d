# frozen_string_literal: true

require 'puppet/util/posix'
require 'puppet/util/symbolic_file_mode'
require_relative '../../../puppet_x/om_messaging/regular_file'

Puppet::Type.type(:om_messaging_file).provide(:posix) do
  desc 'Opens the file once and makes every change through its descriptor.'

  include Puppet::Util::POSIX
  include Puppet::Util::SymbolicFileMode

  alias_method :permissions, :symbolic_mode_to_int

  def exists?
    !state.nil?
  end

  def owner
    state.uid
  end

  def group
    state.gid
  end

  def mode
    format('%<bits>04o', bits: state.mode & 0o7777)
  end

  def create
    directory = File.dirname(resource[:path])
    raise Puppet::Error, "cannot create #{resource[:path]}: the directory #{directory} does not exist" unless File.directory?(directory)

    PuppetX::OmMessaging::RegularFile.open(resource[:path], File::WRONLY | File::CREAT | File::EXCL) do |file|
      file.chown(number(:uid, resource[:owner]), number(:gid, resource[:group]))
      file.chmod(permissions(resource[:mode], file.stat.mode & 0o7777)) if resource[:mode]
    end
  end

  def owner=(wanted)
    change { |file| file.chown(number(:uid, wanted), nil) }
  end

  def group=(wanted)
    change { |file| file.chown(nil, number(:gid, wanted)) }
  end

  def mode=(wanted)
    change { |file| file.chmod(permissions(wanted, file.stat.mode & 0o7777)) }
  end

  private

  def state
    PuppetX::OmMessaging::RegularFile.look(resource[:path], &:stat)
  end

  def change(&block)
    PuppetX::OmMessaging::RegularFile.open(resource[:path], File::RDONLY, &block)
  end

  # An attribute that is not given does not change.
  def number(kind, name)
    return nil if name.nil?

    public_send(kind, name) || raise(Puppet::Error, "the #{kind == :uid ? 'user' : 'group'} #{name} does not exist")
  end
end
