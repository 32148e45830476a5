"""The VM lab of Towline: builds one image, runs four machines on it, and cuts their cables.

Used in two ways: ``python3 -m tools.lab`` from the project folder, and by the Ansible modules in
``library/`` (``ansible.cfg`` names ``tools`` as a place of module_utils).
"""
